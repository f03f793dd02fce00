//go:build !amd64

package lab

// clockFaults are none: how a process is shown another clock is written for
// one architecture.
var clockFaults []fault
