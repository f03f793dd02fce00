package bfd

import (
	"context"
	"sync"
)

// mailbox holds states for a reader that may be slow: the newest of every
// session, so it never holds more than there are sessions. Putting never
// blocks.
type mailbox struct {
	mu     sync.Mutex
	states map[endpoint]State
	order  []endpoint // oldest first
	wake   chan struct{}
}

func newMailbox() *mailbox {
	return &mailbox{states: map[endpoint]State{}, wake: make(chan struct{}, 1)}
}

func (m *mailbox) put(st State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := st.endpoint()
	if _, waiting := m.states[at]; !waiting {
		m.order = append(m.order, at)
	}
	m.states[at] = st
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// next takes the state that has waited longest.
func (m *mailbox) next() (State, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.order) == 0 {
		return State{}, false
	}
	at := m.order[0]
	m.order = m.order[1:]
	st := m.states[at]
	delete(m.states, at)
	return st, true
}

// each takes what waits, and then what comes, until ctx ends or take refuses.
func (m *mailbox) each(ctx context.Context, take func(State) bool) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		}
		for st, ok := m.next(); ok; st, ok = m.next() {
			if !take(st) {
				return
			}
		}
	}
}

// retain drops what waits for sessions that are no longer wanted.
func (m *mailbox) retain(wanted func(endpoint) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.order[:0]
	for _, at := range m.order {
		if wanted(at) {
			kept = append(kept, at)
		} else {
			delete(m.states, at)
		}
	}
	m.order = kept
}
