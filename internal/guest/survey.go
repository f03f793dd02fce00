package guest

import (
	"context"
	"errors"
	"slices"
	"time"
)

// survey keeps up to date who is on the other members of a cluster. It is slow
// where one of them is away, and nothing waits for it.
type survey struct {
	inbox inbox            // what others' events name
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
	// surveyInterval is how often all are asked for: that costs every member a look
	// at all of its instances.
	surveyInterval = 10 * time.Minute
	// surveyPause is how long it rests before it asks for what events have named.
	surveyPause = 15 * time.Second
	// surveyLook is after how long one that has failed is made again, and how often
	// names are looked at, which costs little: an event may have been missed.
	surveyLook = 30 * time.Second
)

// newSurvey goes on from what was found before.
func newSurvey(before []Instance) *survey {
	return &survey{
		inbox: inbox{wake: make(chan struct{}, 1)}, found: make(chan far, 1),
		known: before, names: make(map[Key]struct{}),
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
	var whole time.Time // when all were asked for last
	for {
		keys, all := s.inbox.take()
		var err error
		if all = all || time.Since(whole) >= surveyInterval; !all {
			err = s.ask(ctx, source, server, keys)
		}
		if all || err != nil { // who cannot be asked alone is in the list of all
			whole = time.Now()
			err = s.list(ctx, source, server)
		}
		s.tell(far{s.known, err})
		if err != nil {
			whole = time.Time{}
		}
		if _, err := pause(ctx, surveyPause, nil); err != nil {
			return err
		}
		for {
			woken, ended := pause(ctx, surveyLook, s.inbox.wake)
			if ended != nil {
				return ended
			}
			if !woken && s.renamed(ctx, source) {
				whole = time.Time{}
			}
			if woken || time.Since(whole) >= surveyInterval {
				break
			}
		}
	}
}

func (s *survey) list(ctx context.Context, source Source, server Server) error {
	return bounded(ctx, listTime, func(ctx context.Context) error {
		known, unknown, err := source.Everywhere(ctx)
		if err == nil {
			s.take(known, unknown, server)
		}
		return err
	})
}

// ask brings up to date what is known of some.
func (s *survey) ask(ctx context.Context, source Source, server Server, keys []Key) error {
	known := slices.Clone(s.known)
	for _, key := range keys {
		i, err := ask(ctx, askTime, func(ctx context.Context) (Instance, error) { return source.Instance(ctx, key) })
		if err != nil && !errors.Is(err, ErrGone) {
			return err
		}
		known = slices.DeleteFunc(known, func(o Instance) bool { return o.Key == key })
		delete(s.names, key)
		if err == nil {
			s.names[key] = struct{}{}
			known = append(known, i)
		}
	}
	if len(s.names) > maxCluster {
		return tooMany(len(s.names), maxCluster)
	}
	s.keep(known, server)
	return nil
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
	s.keep(known, server)
}

// keep replaces what was found, in order and without what is here.
func (s *survey) keep(known []Instance, server Server) {
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
