package guest

import (
	"context"
	"slices"
	"time"
)

// survey keeps up to date who is on the other members of a cluster. It is slow
// where one of them is away, and nothing waits for it.
type survey struct {
	wake  chan struct{}   // capacity 1
	found chan []Instance // capacity 1, holds the newest
}

const (
	// surveyInterval is how often it is made without an event.
	surveyInterval = 10 * time.Minute
	// surveyPause is how long it rests between two: each costs every member a
	// look at all of its instances.
	surveyPause = 5 * time.Second
)

func newSurvey() *survey {
	return &survey{wake: make(chan struct{}, 1), found: make(chan []Instance, 1)}
}

// again has it be made once more.
func (s *survey) again() {
	select {
	case s.wake <- struct{}{}:
	default: // it will be
	}
}

// run makes it whenever it is asked for, until ctx ends. That it fails is no
// fault: what was found before holds.
func (s *survey) run(ctx context.Context, source Source, server Server, begin <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-begin:
	}
	for {
		if all, err := bounded(ctx, listTime, source.Everywhere); err == nil {
			s.tell(slices.DeleteFunc(all, server.Here))
		}
		if err := pause(ctx, surveyPause, nil); err != nil {
			return err
		}
		if err := pause(ctx, surveyInterval-surveyPause, s.wake); err != nil {
			return err
		}
	}
}

func (s *survey) tell(others []Instance) {
	slices.SortFunc(others, func(a, b Instance) int { return a.Key.compare(b.Key) })
	select {
	case <-s.found:
	default:
	}
	s.found <- others
}

// pause waits for d, for less if it is woken; its error is that ctx has ended.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
	case <-timer.C:
	}
	return nil
}
