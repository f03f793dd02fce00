package status

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBoard(t *testing.T) {
	early := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	late := early.Add(time.Hour)
	condition := func(name, subject string, severity Severity, since time.Time) Condition {
		return Condition{Name: name, Subject: subject, Severity: severity, Since: since}
	}
	var b Board
	if got := b.Conditions(); got == nil || len(got) != 0 {
		t.Errorf("an empty board has %#v, want an empty list", got)
	}
	b.Replace([]string{"no-carrier"}, []Condition{
		condition("no-carrier", "eth2", Warning, early), condition("no-carrier", "eth1", Warning, early),
	})
	b.Replace([]string{"not-installed"}, []Condition{condition("not-installed", "10.0.200.2/32", Failure, early)})
	// eth1 is mended, eth2 is still cut, eth3 is cut too; the other owner's stays.
	b.Replace([]string{"no-carrier"}, []Condition{
		condition("no-carrier", "eth2", Warning, late), condition("no-carrier", "eth3", Failure, late),
	})
	want := []Condition{
		condition("not-installed", "10.0.200.2/32", Failure, early),
		condition("no-carrier", "eth3", Failure, late),
		condition("no-carrier", "eth2", Warning, early),
	}
	if diff := cmp.Diff(want, b.Conditions()); diff != "" {
		t.Error(diff)
	}
	b.Replace([]string{"no-carrier", "not-installed"}, nil)
	if got := b.Conditions(); len(got) != 0 {
		t.Errorf("everything was mended, but %v stands", got)
	}
}

func TestConditionBeginsWhenItIsReported(t *testing.T) {
	var b Board
	before := time.Now()
	b.Replace([]string{"x"}, []Condition{{Name: "x"}})
	if since := b.Conditions()[0].Since; since.Before(before) || since.After(time.Now()) {
		t.Errorf("since %v", since)
	}
}
