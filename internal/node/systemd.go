package node

import (
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// pulseTime is the longest time between two looks at things that tell
// nothing by themselves.
const pulseTime = 5 * time.Second

// newPulse ticks often enough for the service manager's watchdog
// (sd_watchdog_enabled(3)). The loop itself answers it: one that is stuck is
// to be found out.
func newPulse() *time.Ticker {
	every := pulseTime
	if limit, err := daemon.SdWatchdogEnabled(false); err == nil && limit > 0 {
		every = min(every, limit/3)
	}
	return time.NewTicker(every)
}

// The notifications go nowhere when no service manager asked for them
// (sd_notify(3)); one that cannot take them has other worries.

func notifyReady()    { notify(daemon.SdNotifyReady) }
func notifyAlive()    { notify(daemon.SdNotifyWatchdog) }
func notifyStopping() { notify(daemon.SdNotifyStopping) }

func notifyReloading() {
	notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

func notify(state string) { _, _ = daemon.SdNotify(false, state) }
