package guest

import (
	"context"
	"slices"
	"time"
)

// survey keeps up to date who is on the other members of a cluster. It is slow
// where one of them is away, and nothing waits for it.
type survey struct {
	wake  chan struct{}    // capacity 1
	found chan far         // capacity 1, holds the newest
	known []Instance       // what was found last
	names map[Key]struct{} // of all instances then
}

// far is who is on other members.
type far struct {
	instances []Instance
	err       error // why it may be out of date; nil: it is not
}

const (
	// surveyInterval is how often it is made without an event.
	surveyInterval = 10 * time.Minute
	// surveyPause is how long it rests between two: each costs every member a
	// look at all of its instances.
	surveyPause = 15 * time.Second
	// surveyLook is after how long one that has failed is made again, and how often
	// names are looked at, which costs little: an event may have been missed.
	surveyLook = 30 * time.Second
)

// newSurvey goes on from what was found before.
func newSurvey(before []Instance) *survey {
	return &survey{wake: make(chan struct{}, 1), found: make(chan far, 1), known: before}
}

// again has it be made once more.
func (s *survey) again() {
	select {
	case s.wake <- struct{}{}:
	default: // it will be
	}
}

// run makes it whenever it is asked for, until ctx ends. That it fails ends
// nothing: what was found before holds.
func (s *survey) run(ctx context.Context, source Source, server Server, begin <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-begin:
	}
	for {
		err := bounded(ctx, listTime, func(ctx context.Context) error {
			known, unknown, err := source.Everywhere(ctx)
			if err == nil {
				s.take(known, unknown, server)
			}
			return err
		})
		s.tell(far{s.known, err})
		if _, err := pause(ctx, surveyPause, nil); err != nil {
			return err
		}
		for next := time.Now().Add(surveyInterval - surveyPause); time.Now().Before(next); {
			woken, ended := pause(ctx, surveyLook, s.wake)
			if ended != nil {
				return ended
			}
			if woken || err != nil || s.renamed(ctx, source) {
				break
			}
		}
	}
}

// renamed tells whether there are others by now than the survey found.
func (s *survey) renamed(ctx context.Context, source Source) bool {
	names, err := ask(ctx, askTime, source.Names)
	return err == nil && (len(names) != len(s.names) || slices.ContainsFunc(names, func(key Key) bool {
		_, known := s.names[key]
		return !known
	}))
}

// take replaces what was found, but for instances of which nothing is known at
// the moment: what was once said of them holds.
func (s *survey) take(known []Instance, unknown []Key, server Server) {
	s.names = make(map[Key]struct{}, len(known)+len(unknown))
	doubted := make(map[Key]struct{}, len(unknown))
	for _, i := range known {
		s.names[i.Key] = struct{}{}
	}
	for _, key := range unknown {
		s.names[key], doubted[key] = struct{}{}, struct{}{}
	}
	for _, i := range s.known {
		if _, ok := doubted[i.Key]; ok {
			known = append(known, i)
		}
	}
	s.known = slices.DeleteFunc(known, server.Here)
	slices.SortFunc(s.known, func(a, b Instance) int { return a.Key.compare(b.Key) })
}

func (s *survey) tell(f far) {
	select {
	case <-s.found:
	default:
	}
	s.found <- f
}

// pause waits for d, for less if it is woken; its error is that ctx has ended.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) (woken bool, err error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-wake:
		return true, nil
	case <-timer.C:
		return false, nil
	}
}
