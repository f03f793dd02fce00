package bfd

import "errors"

// The control protocol is JSON, one object a line, over a unix stream socket.
// The process says hello, then answers requests. The connection that sends
// "watch" is the agent's; there is one at a time. Fields that a side does not
// know are ignored.

// protocol is the version that hello carries. A client that finds another one
// replaces the process by its own.
const protocol = 1

// maxLine bounds a line in either direction.
const maxLine = 1 << 20

// request is what a client wants.
type request struct {
	Watch bool       `json:"watch,omitempty"` // become the agent: all states now, then each change
	Set   *[]Session `json:"set,omitempty"`   // the whole set; only from the agent
	Stop  bool       `json:"stop,omitempty"`  // take leave of the peers and exit; from anybody
}

// reply carries exactly one of its fields.
type reply struct {
	Hello *hello `json:"hello,omitempty"`
	State *State `json:"state,omitempty"`
	// Error refuses the last request, in words.
	Error string `json:"error,omitempty"`
}

type hello struct {
	Protocol int `json:"protocol"`
	PID      int `json:"pid"`
}

// errOtherAgent refuses to watch while somebody else does.
var errOtherAgent = errors.New("another agent is connected")
