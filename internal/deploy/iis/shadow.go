package iis

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/ccs"
)

// The ports of bindings that a trial makes on a test machine: each place has one of its
// own, far from those that are served.
const (
	trialPorts = 43000
	trialRoom  = 4000
)

// trialPort is a place's port; places that are numbered have one each.
func trialPort(t deploy.Trial) int {
	if n, err := strconv.Atoi(t.Place); err == nil {
		return trialPorts + n%trialRoom
	}
	return trialPorts + trialRoom + int(crc32.ChecksumIEEE([]byte(t.Mark+t.Place))%trialRoom)
}

// Shadow is deploy.Shadowed: beside a live target the machine's store alone is tried,
// with no binding; on a test machine bindings are made on ports that nobody asks, in
// the first site that the options name. A folder of files is tried as a folder.
func (o Options) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	if o.Store == Central {
		return o.shadowFiles(t)
	}
	at := o
	at.Names, at.Create, at.Ports = t.Names, false, []int{trialPort(t)}
	s := deploy.Shadow{Bare: true, Touches: []string{"certificates of " + strings.Join(t.Names, ", ") + `, in Cert:\LocalMachine\` + o.Certificates}}
	if t.Apart && o.Mode == Bindings && len(o.Sites) > 0 {
		at.Sites, at.Create = o.Sites[:1], true
		s.Touches = append(s.Touches, fmt.Sprintf("bindings for these names on ports from %d of the site %q", trialPorts, o.Sites[0]))
	} else {
		at.Mode, at.Sites = StoreOnly, nil
		s.Untried = []deploy.Untried{{What: "bindings", Why: "those that there are are live; the self test makes some of its own where `sites` names a site"}}
	}
	s.Options = at
	s.Drop = func(ctx context.Context, d deploy.Deployer) error {
		m, ok := d.(*machine)
		if !ok {
			return fmt.Errorf("%T is no deployer of a machine's store", d)
		}
		return m.drop(ctx)
	}
	return s, nil
}

// shadowFiles is the place of a folder: that of the kind ccs, with nothing of IIS.
func (o Options) shadowFiles(t deploy.Trial) (deploy.Shadow, error) {
	s, err := o.files().Shadow(t)
	if err != nil {
		return s, err
	}
	files, ok := s.Options.(ccs.Options)
	if !ok {
		return deploy.Shadow{}, fmt.Errorf("%T are no options of a folder", s.Options)
	}
	at := o
	at.Mode, at.Create, at.Names, at.Path = None, false, t.Names, files.Path
	s.Options, s.Files = at, nil
	s.Untried = append(s.Untried, deploy.Untried{What: "provider and bindings", Why: "the node has one provider, and it is live"})
	return s, nil
}

// drop takes away what trials left: the bindings of their names on their port, and
// the certificates that they brought.
func (d *machine) drop(ctx context.Context) error {
	n, err := d.look(ctx)
	if err != nil {
		return err
	}
	gone := newTurn()
	for _, b := range n.bindings {
		if !d.options.Create || !d.options.mine(b) {
			continue
		}
		v, r := b.move(), n.at(b.at())
		v.Unbind, v.Drop = r.hash != "", true
		gone.moves, gone.want[b.at()] = append(gone.moves, v), ""
	}
	id := d.options.id()
	m, wrong := n.memos[id], d.turn(ctx, n, gone)
	after, err := d.look(ctx)
	if err != nil {
		return errors.Join(wrong, err)
	}
	return errors.Join(wrong, d.erase(ctx, after, id, m, m.Held))
}
