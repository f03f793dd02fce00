package lab

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A fabric that keeps leases has a store by itself; it goes on without the
// node that leads, and has that back when its agent is.
func TestStoreOfLab(t *testing.T) {
	elected := func(document string) string {
		return strings.Replace(document, "prefix: 172.16.0.0/16", "prefix: 172.16.0.0/16, gateway: {address: 172.16.0.1, mode: elected}", 1)
	}
	l := populate(t, "leases", SpineLeaf(1, 2), 0, elected)
	asked := func() string {
		out, _ := exec.Command("ip", "netns", "exec", namespace(l.Name, "leaf2"), l.Binary, "store", "status",
			"--config", l.Document(), "--pki", l.PKI(), "--node", "leaf2").CombinedOutput()
		return string(out)
	}
	within, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	wait := func(what string, is func(string) bool) {
		t.Helper()
		if err := poll(within, func() bool { return is(asked()) }, what); err != nil {
			t.Fatalf("%v:\n%s", err, asked())
		}
	}
	whole := func(s string) bool { return strings.HasPrefix(s, "majority, ") && !strings.Contains(s, "PROBLEM") }
	wait("the store is not whole", whole)
	leader := strings.Fields(asked())[1]
	if err := l.Kill(within, leader); err != nil {
		t.Fatal(err)
	}
	wait("nobody else leads", func(s string) bool {
		return strings.HasPrefix(s, "majority, ") && !strings.HasPrefix(s, "majority, "+leader) && strings.Contains(s, "away")
	})
	if err := l.Start(leader); err != nil {
		t.Fatal(err)
	}
	wait("the store is not whole again", whole)
}
