package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// nftablesGroup is NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h): every
// transaction of nf_tables is told there.
const nftablesGroup = 7

// WatchRules tells that somebody, perhaps this process, has changed
// nf_tables rules. Changes that nobody takes are one. The channel is closed
// when ctx ends, or when the kernel can no longer be heard.
func (k *Kernel) WatchRules(ctx context.Context) (<-chan struct{}, error) {
	var fd int
	err := k.inside(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (nftablesGroup - 1)})
	})
	if err != nil {
		if fd > 0 {
			_ = unix.Close(fd)
		}
		return nil, fmt.Errorf("watch nf_tables: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "nfnetlink")
	changes := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	go func() {
		defer close(changes)
		defer stop()
		if err := readChanges(socket, changes); ctx.Err() == nil {
			k.log.Error("changes of nf_tables cannot be heard any more", "error", err)
			_ = socket.Close()
		}
	}()
	return changes, nil
}

func readChanges(socket *os.File, changes chan<- struct{}) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var buf [256]byte // that something has changed is all that matters
	for {
		if _, err := receiveFrom(raw, buf[:]); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		select {
		case changes <- struct{}{}:
		default: // told already
		}
	}
}
