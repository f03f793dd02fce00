package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// nftablesGroup is NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h): every
	// transaction of nf_tables is told there.
	nftablesGroup = 7
	// newGeneration is what ends the telling of one.
	newGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
	// sizeofNfgenmsg is the header behind a message's own (linux/netfilter/nfnetlink.h).
	sizeofNfgenmsg = 4
)

// WatchRules tells that somebody other than this process has changed nf_tables
// rules. Changes that nobody takes are one. The channel is closed when ctx
// ends, or when the kernel can no longer be heard.
func (k *Kernel) WatchRules(ctx context.Context) (<-chan struct{}, error) {
	var fd int
	err := k.inside(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		if err := onlyGenerations(fd); err != nil {
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

// onlyGenerations keeps from a socket what a transaction consists of.
func onlyGenerations(fd int) error {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetKind, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: swap16(newGeneration), SkipFalse: 1},
		bpf.RetConstant{Val: verdictAccept},
		bpf.RetConstant{Val: verdictDrop},
	})
	if err != nil {
		return fmt.Errorf("assemble the filter of rules' notifications: %w", err)
	}
	return attachFilter(fd, program)
}

func readChanges(socket *os.File, changes chan<- struct{}) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var buf [256]byte
	for {
		n, err := receiveFrom(raw, buf[:])
		switch {
		case errors.Is(err, unix.ENOBUFS):
		case err != nil:
			return err
		case isOwnGeneration(buf[:n]):
			continue
		}
		select {
		case changes <- struct{}{}:
		default: // told already
		}
	}
}

// isOwnGeneration tells whether a thread of this process has made a
// transaction. Where numbers of processes are not the machine's own, as in a
// container, none is said to be.
func isOwnGeneration(message []byte) bool {
	if len(message) < unix.SizeofNlMsghdr+sizeofNfgenmsg {
		return false
	}
	for kind, value := range attributes(message[unix.SizeofNlMsghdr+sizeofNfgenmsg:]) {
		if kind != unix.NFTA_GEN_PROC_PID || len(value) != 4 {
			continue
		}
		thread := strconv.FormatUint(uint64(binary.BigEndian.Uint32(value)), 10)
		_, err := os.Stat(filepath.Join("/proc/self/task", thread))
		return err == nil
	}
	return false
}
