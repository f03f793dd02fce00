package api

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"frond/internal/status"
)

func (a *agent) Nodes() []status.Host { return a.nodes }
func (a *agent) Forwarding(_ context.Context, to status.Destination) (status.Forwarding, error) {
	return a.forwarding(to)
}

func TestForwarding(t *testing.T) {
	var asked status.Destination
	socket, _ := serve(t, &agent{
		nodes: []status.Host{{Name: "leaf1", Loopback: "10.0.200.1"}},
		forwarding: func(to status.Destination) (status.Forwarding, error) {
			asked = to
			if to.Segment == "red" {
				return status.Forwarding{}, errors.New("the kernel does not answer")
			}
			return status.Forwarding{Action: status.Deliver, Port: "lo"}, nil
		},
	})
	client := NewClient(socket)
	if nodes, err := client.Nodes(t.Context()); err != nil || len(nodes) != 1 || nodes[0].Name != "leaf1" {
		t.Errorf("nodes: %+v, %v", nodes, err)
	}
	for _, to := range []status.Destination{
		{Address: "10.0.200.2"}, {Address: "fd00::1"}, {Segment: "blue", MAC: "02:00:00:00:00:01"}, {Segment: "blue", Address: "172.17.0.1"},
	} {
		answer, err := client.Forwarding(t.Context(), to)
		if err != nil || asked != to || answer.Port != "lo" || answer.Legs == nil {
			t.Errorf("%+v: %+v, %v; the agent was asked for %+v", to, answer, err, asked)
		}
	}
	if _, err := client.Forwarding(t.Context(), status.Destination{Segment: "red", MAC: "02:00:00:00:00:01"}); err == nil || err.Error() != "the kernel does not answer" {
		t.Errorf("an agent that cannot say: %v", err)
	}
}

func TestDestinationsThatAreNone(t *testing.T) {
	handler := Handler(&agent{}, quiet)
	for _, query := range []string{
		"", "segment=blue", "mac=02:00:00:00:00:01", "segment=blue&mac=02:00:00:00:00", "segment=blue&mac=02:00:00:00:00:01:02:03",
		"segment=blue&mac=02:00:00:00:00:01&address=10.0.0.1", "address=leaf1", "address=fe80::1", "address=10.0.0.1/32",
		"address=224.0.0.1", "address=0.0.0.0", "address=" + url.QueryEscape("fd00::1%eth0"),
	} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest("GET", "/v1/forwarding?"+query, nil))
		if answer.Code != 400 || !strings.Contains(answer.Body.String(), "error") {
			t.Errorf("%q: %d %s", query, answer.Code, answer.Body)
		}
	}
}
