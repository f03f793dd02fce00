package lab

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// clockFaults are clocks that are stepped by an hour, and back.
var clockFaults = []fault{
	{"an hour ahead", clockAhead(time.Hour), clockAhead(0)},
	{"an hour behind", clockAhead(-time.Hour), clockAhead(0)},
}

func clockAhead(ahead time.Duration) func(*world, string) {
	return func(w *world, node string) { must(w.t, w.setClock(node, ahead)) }
}

// TestElectedClock steps the clock of who has the gateway, and of a member of
// the store: nothing comes of it.
func TestElectedClock(t *testing.T) {
	w := electedWorld(t, "clock", SpineLeaf(2, 3), 3)
	holder := w.watchHolders(electedAddress)
	w.steady()
	before := holder.one(t, 20*time.Second)
	guest := w.guestOn(before, false)
	w.reachesOut(guest)
	moves, lossless := holder.handovers(), w.throughGateway(guest, 4, 1000)
	for _, node := range []string{before, "spine1"} {
		for _, f := range clockFaults {
			f.do(w, node)
			time.Sleep(3 * time.Second) // longer than a lease of a gateway, and than an election
			f.undo(w, node)
			time.Sleep(time.Second)
		}
	}
	w.nothingLost(lossless())
	if now := holder.one(t, time.Second); now != before || holder.handovers() != moves {
		t.Errorf("the gateway has moved from %s to %s, %d times", before, now, holder.handovers()-moves)
	}
	holder.never(t)
}

// setClock has a node's agent and all that it has started see the clock that much ahead of the
// machine's; 0 is the machine's own.
func (l *Lab) setClock(node string, ahead time.Duration) error {
	pids, err := l.Processes(node)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if exe, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe")); exe != l.Binary {
			continue
		}
		if err := setProcessClock(pid, ahead); err != nil {
			return fmt.Errorf("set the clock of process %d on %s: %w", pid, node, err)
		}
	}
	return nil
}

// The clock is one for all processes of a machine, and none of it is asked for
// by system calls: the kernel puts a function into each process that reads it
// (vdso(7)). In a process that is to see another time, a jump at its beginning
// leads to one that asks the kernel, and adds seconds to what that says.
const clockFunction = "__vdso_clock_gettime"

// otherClock stands at the end of the vDSO, where nothing is.
type otherClock struct {
	Ahead int64 // seconds
	Code  [24]byte
}

var otherClockCode = [24]byte{
	0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi: CLOCK_REALTIME is 0
	0x75, 10, // jnz to the end
	0x48, 0x8b, 0x15, 0xe6, 0xff, 0xff, 0xff, // mov rdx, [rip-26]: Ahead
	0x48, 0x01, 0x16, // add [rsi], rdx: tv_sec
	0xc3, // ret
}

const jumpSize = 5 // of a jmp rel32

func setProcessClock(pid int, ahead time.Duration) error {
	base, image, err := vdso(pid)
	if err != nil {
		return err
	}
	entry, err := clockEntry(image)
	if err != nil {
		return err
	}
	memory, err := os.OpenFile(filepath.Join("/proc", strconv.Itoa(pid), "mem"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = memory.Close() }()
	place := uint64(len(image) - binary.Size(otherClock{}))
	if bytes.Equal(image[place+8:], otherClockCode[:]) {
		_, err := memory.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(ahead/time.Second)), int64(base+place))
		return err
	}
	if rest := bytes.Trim(image[place:], "\x00\x90\xcc"); len(rest) > 0 {
		return fmt.Errorf("the vDSO is full to its end: % x", rest)
	}
	if err := stop(pid); err != nil {
		return err
	}
	defer func() { _ = unix.Kill(pid, unix.SIGCONT) }()
	var code bytes.Buffer
	if err := binary.Write(&code, binary.LittleEndian, otherClock{int64(ahead / time.Second), otherClockCode}); err != nil {
		return err
	}
	if _, err := memory.WriteAt(code.Bytes(), int64(base+place)); err != nil {
		return err
	}
	jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(place+8-entry-jumpSize))
	_, err = memory.WriteAt(jump, int64(base+entry))
	return err
}

// stop has a process stand still, so that none of its threads runs what is
// being changed.
func stop(pid int) error {
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return err
	}
	for {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			return err
		}
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "T") { // proc(5)
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

// vdso is where a process has it, and what it holds.
func vdso(pid int) (uint64, []byte, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err != nil {
		return 0, nil, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(line, "[vdso]\n") {
			continue
		}
		var from, to uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return 0, nil, fmt.Errorf("read %q: %w", line, err)
		}
		memory, err := os.Open(filepath.Join(proc, "mem"))
		if err != nil {
			return 0, nil, err
		}
		defer func() { _ = memory.Close() }()
		image := make([]byte, to-from)
		_, err = memory.ReadAt(image, int64(from))
		return from, image, err
	}
	return 0, nil, errors.New("it has no vDSO")
}

func clockEntry(image []byte) (uint64, error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, fmt.Errorf("read the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, fmt.Errorf("read the vDSO: %w", err)
	}
	for _, s := range symbols {
		if s.Name == clockFunction {
			return s.Value, nil
		}
	}
	return 0, fmt.Errorf("the vDSO has no %s", clockFunction)
}

// A process sees what setProcessClock says, and others do not.
func TestProcessClock(t *testing.T) {
	if os.Getenv("FROND_TELL_TIME") != "" {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			fmt.Println(time.Now().Unix())
		}
		return
	}
	teller := exec.Command(os.Args[0], "-test.run", "^TestProcessClock$")
	teller.Env = append(os.Environ(), "FROND_TELL_TIME=1")
	ask, err := teller.StdinPipe()
	must(t, err)
	answers, err := teller.StdoutPipe()
	must(t, err)
	must(t, teller.Start())
	defer func() { must(t, teller.Wait()) }()
	defer func() { must(t, ask.Close()) }()
	lines := bufio.NewScanner(answers)
	for i, ahead := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		if i > 0 { // it runs by now, and has its vDSO
			must(t, setProcessClock(teller.Process.Pid, ahead))
		}
		_, err := ask.Write([]byte("\n"))
		must(t, err)
		if !lines.Scan() {
			t.Fatalf("no answer: %v", lines.Err())
		}
		seconds, err := strconv.ParseInt(lines.Text(), 10, 64)
		must(t, err)
		if got := time.Until(time.Unix(seconds, 0)); got.Round(time.Minute) != ahead {
			t.Errorf("the clock is %s ahead, want %s", got, ahead)
		}
	}
}
