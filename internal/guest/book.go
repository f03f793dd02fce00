package guest

import (
	"maps"
	"slices"
)

// book is what is known of the instances on this member.
type book struct {
	server    Server
	instances map[Key]Instance
	// doubted are those that the hypervisor knew nothing of when it was asked:
	// what it said before holds, and it is asked again.
	doubted map[Key]struct{}
}

func newBook() *book {
	return &book{instances: make(map[Key]Instance), doubted: make(map[Key]struct{})}
}

// replace takes in a whole list.
func (b *book) replace(known []Instance, unknown []Key) {
	before := b.instances
	b.instances, b.doubted = make(map[Key]Instance, len(known)), make(map[Key]struct{})
	for _, i := range known {
		b.put(i)
	}
	for _, key := range unknown {
		if i, ok := before[key]; ok {
			b.instances[key] = i
		}
		b.doubt(key)
	}
}

// put takes in what the hypervisor says of an instance now.
func (b *book) put(i Instance) {
	delete(b.doubted, i.Key)
	if !b.server.Here(i) {
		delete(b.instances, i.Key)
		return
	}
	b.instances[i.Key] = i
}

// doubt notes that the hypervisor knows nothing of an instance at the moment.
func (b *book) doubt(key Key) {
	if len(b.doubted) < maxInstances {
		b.doubted[key] = struct{}{}
	}
}

// forget is for an instance that there is no more.
func (b *book) forget(key Key) {
	delete(b.instances, key)
	delete(b.doubted, key)
}

// compare forgets those that are not among the names of all instances here, and
// returns those to be asked for: the ones that are new, and the doubted.
func (b *book) compare(all []Key) []Key {
	named := make(map[Key]struct{}, len(all))
	var ask []Key
	for _, key := range all {
		named[key] = struct{}{}
		_, known := b.instances[key]
		if _, doubted := b.doubted[key]; doubted || !known {
			ask = append(ask, key)
		}
	}
	maps.DeleteFunc(b.instances, func(key Key, _ Instance) bool { _, ok := named[key]; return !ok })
	maps.DeleteFunc(b.doubted, func(key Key, _ struct{}) bool { _, ok := named[key]; return !ok })
	return ask
}

// strayed tells that the server is not what it was when it was asked: instances
// have a place in a cluster, and it had none.
func (b *book) strayed() bool {
	if b.server.Cluster {
		return false
	}
	for _, i := range b.instances {
		if i.Location != "" && i.Location != "none" {
			return true
		}
	}
	return false
}

// list is all that is known, by project and name.
func (b *book) list() []Instance {
	return slices.SortedFunc(maps.Values(b.instances), func(a, b Instance) int { return a.Key.compare(b.Key) })
}
