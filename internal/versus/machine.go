package versus

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Report is what a run found, and where.
type Report struct {
	Machine Machine  `json:"machine"`
	Results []Result `json:"results"`
}

// Machine is what was measured on, and what.
type Machine struct {
	Processor  string  `json:"processor"`
	Cores      int     `json:"cores"`
	MemoryGiB  float64 `json:"memoryGiB"`
	Kernel     string  `json:"kernel"`
	Frond      string  `json:"frond"`
	FRR        string  `json:"frr,omitempty"`
	Keepalived string  `json:"keepalived,omitempty"`
}

// ThisMachine describes the machine that this runs on.
func ThisMachine(frond string) Machine {
	m := Machine{Cores: runtime.NumCPU(), Frond: frond, Processor: "unknown"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.Processor = strings.TrimSpace(value)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryGiB = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// Markdown is the report as text: the machine, then the table.
func (r Report) Markdown() string {
	m := r.Machine
	text := fmt.Sprintf("%d cores (%s), %.0f GiB, Linux %s; frond %s", m.Cores, m.Processor, m.MemoryGiB, m.Kernel, m.Frond)
	if m.FRR != "" {
		text += ", FRR " + m.FRR
	}
	if m.Keepalived != "" {
		text += ", keepalived " + m.Keepalived
	}
	return text + ". Median [minimum–maximum].\n\n" + Markdown(r.Results)
}
