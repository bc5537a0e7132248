package iis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/ccs"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// share is the Deployer of a Centralized Certificate Store that many servers read. The
// files are a ccs.Store; what the servers lack is made right with an activation, and
// given back with it:
//
//	Activate   the canary's bindings ▶ the files, the canary's first ▶ all bindings
//	Restore    all bindings, providers ▶ the files
//
// So no binding ever looks for a file that is not there, and one server that cannot
// be made right brings back the files and all the others. A server that lacks nothing
// is not in the receipt, and no later step asks it: a renewal is files alone.
type share struct {
	files   *ccs.Store
	options ccs.Options
	readers []string // the nodes of the target
	node    func(ctx context.Context, name string) (host.Host, error)

	password, account farm.Secret
}

var _ interface {
	deploy.Deployer
	deploy.Auditor
} = (*share)(nil)

const (
	nodesAtOnce = 8                // are worked on side by side
	lookTime    = 20 * time.Second // for a look at one node: a longer one is as none, and leaves time for the files
	nodeTime    = 10 * time.Second // that each node which is to be changed may take beyond the deadline of the whole
)

// OfShare is ccs.Wrap: the deployer of a store whose readers are changed, too. It also
// serves where they are not, since a receipt of another target of the share may be in
// its hands.
func OfShare(files *ccs.Store, o ccs.Options, s deploy.Setup) deploy.Deployer {
	return &share{files, o, s.Readers, s.Node, s.Secrets[ccs.StorePassword], s.Secrets[ccs.ReaderPassword]}
}

// shareNote is what a receipt's note says beside that of the files.
type shareNote struct {
	Readers map[string]centralNote `json:",omitempty"` // nodes that are to be changed, and how
	Bird    string                 `json:",omitempty"` // the canary's name
}

// A lack is what a receipt changes of one node.
type lack struct {
	centralNote
	bird string
}

// of is a node as one with a store of its own, but for the files.
func (d *share) of(ctx context.Context, name string) (*central, error) {
	h, err := d.node(ctx, name)
	if err != nil {
		return nil, err
	}
	o := Defaults()
	o.Store, o.Mode, o.Names, o.Bound = Central, d.options.Mode, d.options.Names, d.options.Bound
	if d.options.Canary != "" {
		o.Names = append([]string{d.options.Canary}, o.Names...)
	}
	o.Path, o.User, o.PollingInterval = d.options.At(), d.options.Account, d.options.PollingInterval
	return &central{shell: shell{h}, options: o, password: d.password, account: d.account}, nil
}

// each does something on nodes side by side, and says on which it went wrong.
func (d *share) each(ctx context.Context, names []string, do func(name string, on *central) error) (errs []error) {
	errs = make([]error, len(names))
	slots := make(chan struct{}, nodesAtOnce)
	var all sync.WaitGroup
	for i, name := range names {
		slots <- struct{}{}
		all.Go(func() {
			on, err := d.of(ctx, name)
			if err == nil {
				err = do(name, on)
			}
			if err != nil {
				errs[i] = fmt.Errorf("node %s: %w", name, err)
			}
			<-slots
		})
	}
	all.Wait()
	return errs
}

// asked looks at all readers and hands what was seen over, one after another. A reader
// that does not answer is left as it is: whether it serves is for its endpoints to
// say, and one that is switched off for a night must not hold the certificate of all
// the others.
func (d *share) asked(ctx context.Context, take func(name string, o Options, n node) error) error {
	var mu sync.Mutex
	errs := d.each(ctx, d.readers, func(name string, on *central) error {
		within, cancel := context.WithTimeout(ctx, lookTime)
		defer cancel()
		n, err := on.look(within)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		return take(name, on.options, n)
	})
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool {
		return errors.Is(err, host.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded)
	})...)
}

// Inspect is deploy.Deployer's: what the files hold. A reader that does not read them
// is a mismatch.
func (d *share) Inspect(ctx context.Context) (deploy.Installed, error) {
	in, err := d.files.Inspect(ctx)
	if err != nil || d.options.Mode == None || len(in.Leaves) == 0 {
		return in, err
	}
	err = d.asked(ctx, func(_ string, o Options, n node) error {
		reads, err := n.reads(o)
		in.Mismatch = in.Mismatch || !reads
		return err
	})
	return in, err
}

// Stage is deploy.Deployer's: it says what each reader lacks, refuses what cannot be
// mended, and stages the files.
func (d *share) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	t, err := d.lacking(ctx)
	if err != nil {
		return deploy.Receipt{}, fmt.Errorf("staging: %w", err)
	}
	r, err := d.files.Stage(ctx, s)
	if err != nil || len(t.Readers) == 0 {
		return r, err
	}
	r.Wait += time.Duration(len(t.Readers)) * nodeTime
	r.Note, err = beside(r.Note, t)
	return r, err
}

// lacking is what all readers lack.
func (d *share) lacking(ctx context.Context) (t shareNote, err error) {
	if d.options.Mode == None {
		return t, nil
	}
	if len(d.readers) == 0 {
		return t, fmt.Errorf("mode %s changes the IIS servers that read the store, and none is named: name them under `on`", d.options.Mode)
	}
	t.Readers, t.Bird = map[string]centralNote{}, d.options.Canary
	err = d.asked(ctx, func(name string, o Options, n node) error {
		lacks, err := n.toRead(o)
		if !n.provider.enabled || slices.ContainsFunc(lacks.Slots, func(s slot) bool { return s.Made || s.Flags&flagCentral == 0 }) {
			t.Readers[name] = lacks
		}
		return err
	})
	return t, err
}

// beside adds our note to that of the files, which reads it as before.
func beside(files json.RawMessage, t shareNote) (json.RawMessage, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(files, &all); err != nil {
		return nil, err
	}
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// byNode is what all receipts change, for each node.
func byNode(rs []deploy.Receipt) (map[string][]lack, error) {
	nodes := map[string][]lack{}
	for _, r := range rs {
		var t shareNote
		if err := json.Unmarshal(r.Note, &t); err != nil {
			return nil, fmt.Errorf("reading a receipt: %w", err)
		}
		for name, lacks := range t.Readers {
			nodes[name] = append(nodes[name], lack{lacks, strings.ToLower(t.Bird)})
		}
	}
	return nodes, nil
}

// Activate is deploy.Deployer's; see share.
func (d *share) Activate(ctx context.Context, rs []deploy.Receipt) error {
	nodes, err := byNode(rs)
	if err != nil {
		return err
	}
	if err = d.settle(ctx, nodes, lack.birds); err == nil {
		err = d.files.Activate(ctx, rs)
	}
	if err == nil {
		err = d.settle(ctx, nodes, func(l lack) centralNote { return l.centralNote })
	}
	if err != nil && len(nodes) > 0 { // the files put themselves back
		ctx, cancel := mending(ctx)
		defer cancel()
		return errors.Join(err, d.Restore(ctx, rs))
	}
	return err
}

// birds is what is done before the files: the canary's bindings, which no client asks for.
func (l lack) birds() centralNote {
	t := l.centralNote
	t.Slots = slices.DeleteFunc(slices.Clone(t.Slots), func(s slot) bool { return l.bird == "" || s.Host != l.bird })
	if len(t.Slots) == 0 {
		t.Setting = nil
	}
	return t
}

// settle makes providers and bindings of nodes right: the first node alone, and if that
// is well the others.
func (d *share) settle(ctx context.Context, nodes map[string][]lack, meant func(lack) centralNote) error {
	names := slices.Sorted(maps.Keys(nodes))
	first := min(len(names), 1)
	for _, some := range [][]string{names[:first], names[first:]} {
		if err := errors.Join(d.each(ctx, some, func(name string, on *central) error {
			var ts []centralNote
			for _, l := range nodes[name] {
				ts = append(ts, meant(l))
			}
			return on.settle(ctx, ts)
		})...); err != nil {
			return fmt.Errorf("activating: %w", err)
		}
	}
	return nil
}

// Restore is deploy.Deployer's; see share. A node that cannot be given back what it had
// holds neither the others nor the files.
func (d *share) Restore(ctx context.Context, rs []deploy.Receipt) error {
	nodes, err := byNode(rs)
	if err != nil {
		return err
	}
	wrong := d.each(ctx, slices.Sorted(maps.Keys(nodes)), func(name string, on *central) error {
		var ts []centralNote
		for _, l := range nodes[name] {
			ts = append(ts, l.centralNote)
		}
		return on.unsettle(ctx, ts)
	})
	return errors.Join(append(wrong, d.files.Restore(ctx, rs))...)
}

// Discard is deploy.Deployer's: what is kept is kept in files alone.
func (d *share) Discard(ctx context.Context, r deploy.Receipt) error {
	return d.files.Discard(ctx, r)
}

// Audit looks through the store as ccs.Store's does, and names readers that do not read
// it as they should, and bindings that are overruled.
func (d *share) Audit(ctx context.Context, a deploy.Audit) ([]deploy.Flaw, error) {
	all, err := d.files.Audit(ctx, a)
	if err != nil || d.options.Mode == None {
		return all, err
	}
	err = d.asked(ctx, func(name string, o Options, n node) error {
		for _, f := range append(n.unread(o), n.overruled(o)...) {
			f.Place = name + ": " + f.Place
			all = append(all, f)
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b deploy.Flaw) int { return strings.Compare(a.Place, b.Place) })
	return all, err
}
