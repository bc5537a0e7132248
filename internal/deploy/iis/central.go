package iis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/ccs"
	"github.com/certfarm/certfarm/internal/farm"
)

// flagsCentral are those of a binding that takes its certificate from the store by
// the name that the client asks for. Other flags go, as other tools have it.
const flagsCentral = flagSNI | flagCentral

// central is the Deployer of a node that is its own Centralized Certificate Store:
// the files are a ccs.Store, the settings and the bindings around it are made right
// with each activation, and given back with the files.
type central struct {
	shell
	options           Options
	password, account farm.Secret
	files             *ccs.Store
}

// centralNote is a receipt's note.
type centralNote struct {
	Files   json.RawMessage `json:",omitempty"` // the receipt's note of the files
	Enable  bool            `json:",omitempty"` // the provider was not enabled at Stage
	Slots   []slot          `json:",omitempty"`
	Deafen  []string        `json:",omitempty"` // ports on which http.sys did not ask the store
	Setting *setting        `json:",omitempty"` // nil: nothing of IIS is touched
}

// setting is what the provider is enabled with, without its secrets.
type setting struct{ Location, User string }

// Inspect is deploy.Deployer's. Files that IIS does not read, since the provider is
// not enabled for them or a binding does not use it, are a mismatch.
func (d *central) Inspect(ctx context.Context) (deploy.Installed, error) {
	in, err := d.files.Inspect(ctx)
	if err != nil || d.options.Mode == None || len(in.Leaves) == 0 {
		return in, err
	}
	n, err := d.look(ctx)
	if err != nil {
		return deploy.Installed{}, err
	}
	reads, err := n.reads(d.options)
	in.Mismatch = in.Mismatch || !reads
	return in, err
}

// reads reports that IIS takes its certificates from the store, as far as the mode
// has it.
func (n node) reads(o Options) (bool, error) {
	if !n.provider.enabled || !samePath(n.provider.location, o.Path) {
		return false, nil
	}
	if o.Mode == StoreOnly {
		return true, nil
	}
	slots, err := n.slots(o)
	return err == nil && !slices.ContainsFunc(slots, func(s slot) bool { return s.Made || s.Flags&flagCentral == 0 }), err
}

// samePath compares folders as Windows does.
func samePath(a, b string) bool {
	plain := func(p string) string { return strings.TrimRight(strings.ReplaceAll(p, "/", `\`), `\`) }
	return strings.EqualFold(plain(a), plain(b))
}

// Stage is deploy.Deployer's.
func (d *central) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	t, err := d.plan(ctx)
	if err != nil {
		return deploy.Receipt{}, fmt.Errorf("staging: %w", err)
	}
	r, err := d.files.Stage(ctx, s)
	if err != nil {
		return r, err
	}
	t.Files = r.Note
	r.Note, err = json.Marshal(t)
	return r, err
}

// plan says what of IIS will be changed, and refuses what cannot be.
func (d *central) plan(ctx context.Context) (t centralNote, err error) {
	if d.options.Mode == None {
		return t, nil
	}
	n, err := d.look(ctx)
	if err != nil {
		return t, err
	}
	return n.toRead(d.options)
}

// toRead says what of a node will be changed, so that it takes its certificates from
// the store.
func (n node) toRead(o Options) (t centralNote, err error) {
	t.Setting = &setting{o.Path, o.User}
	t.Enable = !n.provider.enabled
	if err := n.provider.suits(o); err != nil || o.Mode == StoreOnly {
		return t, err
	}
	if t.Slots, err = n.slots(o); err != nil {
		return t, err
	}
	for _, s := range t.Slots {
		if s.Host == "" {
			return t, fmt.Errorf("the binding %s has no host name, by which a certificate could be found in the store: leave it out by sites or ports", s)
		}
		if !n.listens(s.Port) && !slices.Contains(t.Deafen, s.Port) {
			t.Deafen = append(t.Deafen, s.Port)
		}
	}
	return t, n.fit(o, t.Slots)
}

// suits says why a provider cannot become what the options ask for.
func (p provider) suits(o Options) error {
	switch {
	case p.enabled && !samePath(p.location, o.Path):
		return fmt.Errorf("the Centralized Certificate Store of the node is %s, and other bindings may read it: give that as path, or disable it first", p.location)
	case !p.enabled && o.User == "":
		return errors.New("the Centralized Certificate Store is not enabled on the node, and no account is named to read it: give its name and its password, or enable it in IIS Manager")
	}
	return nil
}

// take takes receipts apart: ours, and those of the files.
func take(rs []deploy.Receipt) (ts []centralNote, files []deploy.Receipt, err error) {
	for _, r := range rs {
		var t centralNote
		if err := json.Unmarshal(r.Note, &t); err != nil {
			return nil, nil, fmt.Errorf("reading a receipt: %w", err)
		}
		r.Note = t.Files
		ts, files = append(ts, t), append(files, r)
	}
	return ts, files, nil
}

// Activate is deploy.Deployer's: the files, then the provider, then the bindings, so
// that no binding ever looks for a file that is not there.
func (d *central) Activate(ctx context.Context, rs []deploy.Receipt) error {
	ts, files, err := take(rs)
	if err != nil {
		return err
	}
	if err := d.files.Activate(ctx, files); err != nil {
		return err // they are put back
	}
	if err := d.settle(ctx, ts); err != nil {
		ctx, cancel := mending(ctx)
		defer cancel()
		return errors.Join(fmt.Errorf("activating: %w", err), d.Restore(ctx, rs))
	}
	return nil
}

// settle makes provider and bindings right.
func (d *central) settle(ctx context.Context, ts []centralNote) error {
	if !slices.ContainsFunc(ts, func(t centralNote) bool { return t.Setting != nil }) {
		return nil
	}
	n, err := d.look(ctx)
	if err != nil {
		return err
	}
	for _, t := range ts {
		if t.Setting != nil && !n.provider.enabled {
			if err := d.enable(ctx, *t.Setting); err != nil {
				return err
			}
			n.provider.enabled = true
		}
	}
	to := newTurn()
	for _, t := range ts {
		for _, s := range t.Slots {
			if err := n.centralise(&to, s); err != nil {
				return err
			}
		}
	}
	return d.turn(ctx, n, to)
}

// enable enables the provider with all its settings.
func (d *central) enable(ctx context.Context, s setting) error {
	_, err := d.run(ctx, centralScript, map[string]any{
		"enable": true, "location": strings.ReplaceAll(s.Location, "/", `\`), "user": s.User,
		"password": string(d.account.Reveal()), "key": string(d.password.Reveal()), "interval": d.options.interval(),
	}, d.account, d.password)
	if err != nil {
		return fmt.Errorf("enabling the Centralized Certificate Store: %w", err)
	}
	return nil
}

// centralise adds what makes a binding read the store.
func (n node) centralise(to *turn, s slot) error {
	now, exists := n.named(s)
	v := s.move()
	v.Flags = flagsCentral
	if exists && now.Flags&flagCentral != 0 {
		return nil
	}
	if exists == s.Made || exists && now.Flags != s.Flags {
		return fmt.Errorf("the binding %s: %w", s, errForeign)
	}
	if v.Create, v.Reflag = !exists, exists; exists {
		if v.Unbind = s.Flags&flagSNI != 0 && n.hash(s) != ""; v.Unbind {
			to.want[s.at()] = "" // it would win over the store; an entry for the address alone does not
		}
	}
	if !n.listens(s.Port) && !slices.Contains(to.ports, s.Port) {
		v.Listen = true
		to.ports = append(to.ports, s.Port)
	}
	to.moves = append(to.moves, v)
	return nil
}

// named is a slot's binding as it is now, whatever its flags.
func (n node) named(s slot) (binding, bool) {
	i := slices.IndexFunc(n.bindings, func(b binding) bool { return b.Site == s.Site && b.Info == s.Info })
	if i < 0 {
		return binding{}, false
	}
	return n.bindings[i], true
}

// Restore is deploy.Deployer's: the bindings, then the provider, then the files.
func (d *central) Restore(ctx context.Context, rs []deploy.Receipt) error {
	ts, files, err := take(rs)
	if err != nil {
		return err
	}
	return errors.Join(d.unsettle(ctx, ts), d.files.Restore(ctx, files))
}

func (d *central) unsettle(ctx context.Context, ts []centralNote) error {
	if !slices.ContainsFunc(ts, func(t centralNote) bool { return t.Setting != nil }) {
		return nil
	}
	n, err := d.look(ctx)
	if err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	back := newTurn()
	var wrong []error
	for _, t := range ts {
		for _, s := range t.Slots {
			wrong = append(wrong, n.decentralise(&back, s))
		}
		n.deafen(&back, t)
	}
	wrong = append(wrong, d.turn(ctx, n, back))
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("restoring: %w", err) // the provider stays: a binding may still read it
	}
	if !n.provider.enabled || !slices.ContainsFunc(ts, func(t centralNote) bool { return t.Enable }) || n.othersCentral("", slotsOf(ts)) {
		return nil
	}
	if _, err := d.run(ctx, centralScript, map[string]any{"enable": false}); err != nil {
		return fmt.Errorf("disabling the Centralized Certificate Store again: %w", err)
	}
	return nil
}

func slotsOf(ts []centralNote) (all []slot) {
	for _, t := range ts {
		all = append(all, t.Slots...)
	}
	return all
}

// deafen adds that http.sys no longer asks the store on ports where it did not at
// Stage, and nobody else has begun to need it.
func (n node) deafen(back *turn, t centralNote) {
	for _, port := range t.Deafen {
		if n.listens(port) && !slices.Contains(back.deafen, port) && !n.othersCentral(port, t.Slots) {
			back.deafen, back.ports = append(back.deafen, port), append(back.ports, port)
		}
	}
}

// othersCentral reports that a binding beside the slots reads the store on a port;
// empty: on any.
func (n node) othersCentral(port string, slots []slot) bool {
	return slices.ContainsFunc(n.bindings, func(b binding) bool {
		ours := slices.ContainsFunc(slots, func(s slot) bool {
			return s.Site == b.Site && s.Info == b.Info && (s.Made || s.Flags&flagCentral == 0)
		})
		return (b.Port == port || port == "") && b.Flags&flagCentral != 0 && !ours
	})
}

// decentralise adds what gives a binding back its flags and its certificate.
func (n node) decentralise(back *turn, s slot) error {
	now, exists := n.named(s)
	if s.Made {
		if exists {
			v := s.move()
			v.Drop = true
			back.moves = append(back.moves, v)
		}
		return nil
	}
	if !exists {
		return fmt.Errorf("the binding %s: %w", s, errForeign)
	}
	v := s.move()
	v.Reflag = now.Flags != s.Flags
	if s.Prev != "" && n.hash(s) != s.Prev {
		c, ok := n.find(s.Store, s.Prev)
		if !ok {
			return fmt.Errorf("the binding %s had the certificate %s, which is not in the store any more", s, short(s.Prev))
		}
		v.Thumb, v.Store = s.Prev, c.store
	}
	if s.at() != "" {
		back.want[s.at()] = s.Prev
	}
	if v.Reflag || v.Thumb != "" {
		back.moves = append(back.moves, v)
	}
	return nil
}

// Discard is deploy.Deployer's: what is kept is kept in files alone.
func (d *central) Discard(ctx context.Context, r deploy.Receipt) error {
	_, files, err := take([]deploy.Receipt{r})
	if err != nil {
		return err
	}
	return d.files.Discard(ctx, files[0])
}
