package quorum

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// memory is what an agent leaves to the next one on the same machine, so that
// it goes on with what is held: a file that does not outlive a boot, whose times
// are on a clock that does not either.
type memory struct {
	Machine string             `json:"machine"` // and its boot
	Place   Place              `json:"place"`
	Held    map[string]tenancy `json:"held"` // by segment
}

// tenancy is a claim that is held.
type tenancy struct {
	First time.Duration `json:"first"`
	Sent  time.Duration `json:"sent"`
	Term  uint64        `json:"term"`
	Since time.Time     `json:"since"`
	Why   string        `json:"why"`
}

// remember is what there is to leave.
func (a *agent) remember() map[string]tenancy {
	held := make(map[string]tenancy)
	for segment, c := range a.claims {
		if c.held {
			held[segment] = tenancy{c.first, c.sent, c.term, c.since, c.why}
		}
	}
	return held
}

// resume goes on with what was held: while no lease has ended, nobody else
// holds it. What is not known to be in the kernel is not taken out of it either.
func (a *agent) resume(held map[string]tenancy, now time.Duration) {
	for segment, h := range held {
		if h.Sent > now || !a.timing.Lasts(h.Sent, now) || !a.takesPart(segment) {
			continue
		}
		a.claims[segment] = &claim{first: h.First, sent: h.Sent, held: true, named: h.Sent, again: never, asked: never, term: h.Term, since: h.Since, why: h.Why}
		a.kernel.Expect(segment)
	}
}

// largestMemory bounds what is read, in bytes: some ten thousand segments.
const largestMemory = 4 << 20

// load reads what the agent before has left; the zero memory if there is none
// that is of use.
func load(path, machine string) (memory, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return memory{}, nil
	}
	if err == nil && info.Size() > largestMemory {
		return memory{}, fmt.Errorf("%s is no memory of gateways: it has %d bytes", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return memory{}, err
	}
	var m memory
	if err := json.Unmarshal(text, &m); err != nil {
		return memory{}, fmt.Errorf("%s is no memory of gateways: %w", path, err)
	}
	if m.Machine != machine {
		return memory{}, nil
	}
	return m, nil
}

// save leaves a memory, or none if that cannot be written: one that is out of
// date would have a gateway go on that was given away.
func (m memory) save(path string) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	err = os.WriteFile(path+".new", text, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		return nil
	}
	if removed := os.Remove(path); removed != nil && !errors.Is(removed, fs.ErrNotExist) {
		return fmt.Errorf("leave to the next agent what is held: %w", errors.Join(err, removed))
	}
	return nil
}

// memoryPath is where the memory is, below the directory for it.
func memoryPath(dir string) string { return filepath.Join(dir, "gateways.json") }
