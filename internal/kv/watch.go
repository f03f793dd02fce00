package kv

import "context"

// WatchEach is Store.Watch of the store of the moment, from one to the next: the
// first change of each is the whole. current says which it is, nil if there is
// none, and what is closed when it is another one.
func WatchEach(ctx context.Context, prefix string, current func() (Store, <-chan struct{})) <-chan Change {
	changes := make(chan Change)
	go func() {
		defer close(changes)
		for ctx.Err() == nil {
			store, replaced := current()
			watchOne(ctx, prefix, store, replaced, changes)
		}
	}()
	return changes
}

// watchOne passes on what one store tells, until there is another.
func watchOne(ctx context.Context, prefix string, store Store, replaced <-chan struct{}, changes chan<- Change) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var told <-chan Change
	if store != nil {
		told = store.Watch(ctx, prefix)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-replaced:
			return
		case c, ok := <-told:
			if !ok {
				return
			}
			select {
			case changes <- c:
			case <-replaced:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}
