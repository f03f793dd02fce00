package ra

// outbox holds what is to be told, at most one entry for each port: the last.
// Its size is bounded by the ports there are and those the reader knows of.
type outbox struct {
	order   []string // ports in pending, the longest waiting first
	pending map[string]Neighbors
	told    map[string]bool // ports that the reader believes to have something on them
}

func newOutbox() *outbox {
	return &outbox{pending: make(map[string]Neighbors), told: make(map[string]bool)}
}

// put replaces what was to be told of a port.
func (o *outbox) put(n Neighbors) {
	if _, ok := o.pending[n.Port]; !ok {
		o.order = append(o.order, n.Port)
	}
	o.pending[n.Port] = n
	if n.empty() && !o.told[n.Port] {
		o.remove(n.Port)
	}
}

// first is what to tell next.
func (o *outbox) first() (n Neighbors, ok bool) {
	if len(o.order) == 0 {
		return Neighbors{}, false
	}
	return o.pending[o.order[0]], true
}

// took notes that the first was told.
func (o *outbox) took() {
	n := o.pending[o.order[0]]
	o.remove(n.Port)
	if n.empty() {
		delete(o.told, n.Port)
	} else {
		o.told[n.Port] = true
	}
}

func (o *outbox) remove(port string) {
	delete(o.pending, port)
	for i, name := range o.order {
		if name == port {
			o.order = append(o.order[:i], o.order[i+1:]...)
			return
		}
	}
}
