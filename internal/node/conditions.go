package node

import (
	"fmt"
	"strings"
	"time"

	"frond/internal/bgp"
	"frond/internal/plan"
	"frond/internal/status"
)

// The conditions that the node reports.
const (
	noPorts         = "no-ports"
	noCarrier       = "port-no-carrier"
	nobodyAnswers   = "nobody-answers"
	cableLoops      = "cable-loops"
	twoNeighbors    = "two-neighbours"
	sessionDown     = "session-down"
	wrongKey        = "wrong-key" // instead of session-down: that is why
	documentRefused = "document-refused"
	sysctlNotSet    = "sysctl-not-set"
	kernelRefused   = "kernel-refused"
	notInstalled    = "routes-not-installed"
)

var allConditions = []string{noPorts, noCarrier, nobodyAnswers, cableLoops, twoNeighbors, sessionDown, wrongKey,
	documentRefused, sysctlNotSet, kernelRefused, notInstalled}

// misfitTime is how long the kernel may lag behind BGP before that is a
// condition: batches are under way all the time.
const misfitTime = 2 * time.Second

// judgeInterval is how often it is found out, at most, what is wrong, unless
// somebody asks: while a node starts, a lot happens.
const judgeInterval = 100 * time.Millisecond

// judgeInTurn judges now or, if that was done only just before, later.
func (l *loop) judgeInTurn(now time.Time) {
	if due := l.judged.Add(judgeInterval); now.Before(due) {
		l.judgeDue = due
		return
	}
	l.judge(now)
}

// judge puts on the board what is wrong now.
func (l *loop) judge(now time.Time) {
	if !l.began {
		return
	}
	l.judged, l.judgeDue = now, time.Time{}
	wrong := l.kernelConditions(now)
	if l.document.Error != "" {
		wrong = append(wrong, status.Condition{Name: documentRefused, Subject: l.document.Path, Severity: status.Failure,
			Text: "the changed document is refused, the one before stays in force: " + l.document.Error})
	}
	if len(l.ports) == 0 {
		wrong = append(wrong, status.Condition{Name: noPorts, Subject: l.plan.Node.Name, Severity: status.Failure,
			Text: "no interface matches the document's ports: " + strings.Join(l.plan.Node.Ports, " ")})
	}
	for _, name := range l.portNames {
		wrong = append(wrong, l.portConditions(name, now)...)
	}
	l.board.Replace(allConditions, wrong)
}

// portConditions are what is wrong on a port. One that never had a session in
// this run is a warning: perhaps nothing is to be there.
func (l *loop) portConditions(name string, now time.Time) []status.Condition {
	p, s := l.ports[name], l.peerOn(name, now)
	severity := status.Warning
	if p.wasPeered {
		severity = status.Failure
	}
	var wrong []status.Condition
	add := func(condition string, severity status.Severity, text string) {
		wrong = append(wrong, status.Condition{Name: condition, Subject: name, Severity: severity, Text: text, Since: s.Since})
	}
	others := l.strangers(p)
	if len(others) > 1 {
		add(twoNeighbors, status.Failure, "two neighbours on one cable: "+joined(others)+"; a cable of the fabric has two ends, is there a switch in it?")
	}
	switch {
	case !p.link.Carrier:
		add(noCarrier, severity, "no carrier: is the cable plugged in, and the other end up?")
	case l.loopsTo(p) != "":
		add(cableLoops, status.Failure, "the cable loops back to port "+l.loopsTo(p)+" of this node")
	case !p.neighbor.IsValid():
		add(nobodyAnswers, severity, "nobody answers on this cable: does the other end run frond, or send router advertisements?")
	case s.Restarting:
		add(sessionDown, status.Warning, "the peer restarts, its routes are kept meanwhile: "+s.Reason)
	case s.Key != "" && s.State != string(bgp.Established):
		add(wrongKey, status.Failure, "no session with "+who(s)+": "+s.Reason)
	case s.State != string(bgp.Established):
		add(sessionDown, status.Failure, "no session with "+who(s)+": "+s.Reason)
	}
	return wrong
}

func who(s status.Peer) string {
	if s.Name != "" {
		return s.Name
	}
	return s.Address
}

func joined[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}

// kernelConditions are where the kernel is not as desired.
func (l *loop) kernelConditions(now time.Time) []status.Condition {
	report := l.plane.Report()
	var wrong []status.Condition
	for _, path := range report.MissingSysctls {
		if !plan.OnlyInitial(path) {
			wrong = append(wrong, status.Condition{Name: sysctlNotSet, Subject: path, Severity: status.Warning,
				Text: "this kernel has no sysctl " + path})
		}
	}
	for _, problem := range report.Problems {
		subject, _, _ := strings.Cut(problem.Text, ": ")
		c := status.Condition{Name: kernelRefused, Subject: subject, Severity: status.Failure, Text: problem.Text, Since: problem.Since}
		if path, ok := strings.CutPrefix(subject, "set sysctl "); ok {
			c.Name, c.Subject = sysctlNotSet, path
		}
		if problem.Count > 1 {
			c.Text += fmt.Sprintf(" (and %d more)", problem.Count-1)
		}
		wrong = append(wrong, c)
	}
	if report.Desired == report.Installed {
		l.misfit = time.Time{}
	} else if l.misfit.IsZero() {
		l.misfit = now
	}
	if !l.misfit.IsZero() && now.Sub(l.misfit) >= misfitTime {
		wrong = append(wrong, status.Condition{Name: notInstalled, Subject: "kernel", Severity: status.Failure, Since: l.misfit,
			Text: fmt.Sprintf("the kernel holds %d of %d routes as desired; frond tries again", report.Installed, report.Desired)})
	}
	return wrong
}
