package versus

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// idle is what the daemons cost while nothing happens.
func idle(ctx context.Context, f *Fabric) ([]Sample, error) {
	const span = 10 * time.Second
	before, err := f.processorTime()
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, span); err != nil {
		return nil, err
	}
	after, err := f.processorTime()
	if err != nil {
		return nil, err
	}
	leaf, err := f.memory(observed)
	if err != nil {
		return nil, err
	}
	spine, err := f.memory("spine1")
	return []Sample{{Value: leaf}, {Value: spine}, {Value: 100 * (after - before) / span.Seconds()}}, err
}

// memory is what all processes on a node hold, in MiB: their proportional
// share (Pss of proc_pid_smaps_rollup(5)), as several share libraries.
func (f *Fabric) memory(node string) (mib float64, err error) {
	pids, err := f.Processes(node)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, fmt.Errorf("read the memory of a process of %s: %w", node, err)
		}
		for line := range strings.Lines(string(text)) {
			var kib float64
			if n, _ := fmt.Sscanf(line, "Pss: %f kB", &kib); n == 1 {
				mib += kib / 1024
			}
		}
	}
	return mib, nil
}

// processorTime is what the daemons of all nodes have used, in seconds; those
// of far are left out.
func (f *Fabric) processorTime() (seconds float64, err error) {
	for _, n := range f.own() {
		used, err := f.processorTimeOn(n.Name)
		if err != nil {
			return 0, err
		}
		seconds += used
	}
	return seconds, nil
}

// processorTimeOn is what the daemons of one node have used.
func (f *Fabric) processorTimeOn(node string) (seconds float64, err error) {
	pids, err := f.Processes(node)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		used, err := processorTimeOf(pid)
		if err != nil {
			return 0, fmt.Errorf("read the processor time of a process of %s: %w", node, err)
		}
		seconds += used
	}
	return seconds, nil
}

// processorTimeOf reads utime and stime (proc_pid_stat(5)), in seconds.
func processorTimeOf(pid int) (seconds float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const utime, stime, perSecond = 14 - 3, 15 - 3, 100 // the first field here is the third
	for _, i := range []int{utime, stime} {
		ticks, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return 0, err
		}
		seconds += ticks / perSecond
	}
	return seconds, nil
}
