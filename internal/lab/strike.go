package lab

import (
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// Set makes the node misbehave from now on, in place of any fault before. With
// a time it is cleared by itself. NoFault clears it.
func (n *Node) Set(f Fault) error {
	if err := knows(n, f.Kind); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return fmt.Errorf("set %s on node %s: the node is closed", f, n.c.Name)
	}
	n.fault = f
	n.round++
	n.web.setFault(f.Kind)
	n.ssh.SetFaults(sshserver.Faults{
		Delay: n.c.RTT, Hang: f.Kind == Hangs, DiskFull: f.Kind == DiskFull, Alter: alter(f.Kind),
	})
	if err := n.apply(); err != nil {
		return fmt.Errorf("set %q on node %s: %w", f, n.c.Name, err)
	}
	if f.For > 0 {
		round := n.round
		n.wg.Go(func() { n.expire(f.For, round) })
	}
	return nil
}

func alter(k Kind) func(string, []byte) []byte {
	if k == WrongKey {
		return otherKey
	}
	return nil
}

// Clear mends the node. What dies-for-good has taken stays away.
func (n *Node) Clear() error { return n.Set(Fault{}) }

// Fault is the fault that is set.
func (n *Node) Fault() Fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fault
}

// Gone reports that the fault dies-for-good has struck.
func (n *Node) Gone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone
}

// again is how soon a port that could not be opened is tried again.
const again = 100 * time.Millisecond

// expire clears the fault of a round after its time, and goes on until the
// node's ports are open again.
func (n *Node) expire(after time.Duration, round int) {
	for wait(n.end, after) == nil {
		n.mu.Lock()
		if n.round != round || n.closed {
			n.mu.Unlock()
			return
		}
		n.fault = Fault{}
		n.web.setFault(NoFault)
		n.ssh.SetFaults(sshserver.Faults{Delay: n.c.RTT})
		err := n.apply()
		n.mu.Unlock()
		if err == nil {
			return
		}
		after = again
	}
}

// dieSoon ends the machine for ever, a moment later. It is called in the middle
// of a command, whose answer still gets out.
func (n *Node) dieSoon() {
	n.wg.Go(func() {
		if wait(n.end, afterAnswer) != nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.gone = true
		_ = n.apply() // shutting cannot fail
	})
}

// apply brings the ports to what the fault says.
func (n *Node) apply() error {
	powered := n.fault.Kind != Down && !n.gone
	if err := n.power(powered); err != nil {
		return err
	}
	listen := powered && n.fault.Kind != SSHDown && !n.closed
	if listen == n.listen {
		return nil
	}
	if !listen {
		n.listen = false
		return n.ssh.Close()
	}
	if err := n.ssh.Start(); err != nil {
		return err
	}
	n.listen = true
	return nil
}

func (n *Node) power(on bool) error {
	if err := n.web.power(on); err != nil {
		return err
	}
	if on {
		return n.plain.open()
	}
	n.plain.shut()
	return nil
}
