package iis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
)

// move is one change of a binding, in the words of the script that makes it. What
// is false or empty is not done; the order is that of the fields.
type move struct {
	Site string `json:"site"`
	Info string `json:"info"`
	IP   string `json:"ip"`
	Port string `json:"port"`
	Host string `json:"host"`

	Create bool   `json:"create"` // with Flags
	Unbind bool   `json:"unbind"` // take its certificate out of http.sys
	Reflag bool   `json:"reflag"` // set Flags
	Flags  int    `json:"flags"`
	Thumb  string `json:"thumb"` // give it this certificate
	Store  string `json:"store"`
	Listen bool   `json:"listen"` // http.sys is to ask the Centralized Certificate Store on the port
	Drop   bool   `json:"drop"`
}

func (b binding) move() move {
	return move{Site: b.Site, Info: b.Info, IP: b.IP, Port: b.Port, Host: b.Host, Flags: b.Flags}
}

// turn is what one switch does: moves, what http.sys must have then, and what is
// remembered.
type turn struct {
	moves  []move
	want   map[string]string // place to thumb; "": nothing there
	ports  []string          // where the Centralized Certificate Store may come or go
	deafen []string          // ports on which it goes
	memos  map[string]memo
}

func newTurn() turn { return turn{want: map[string]string{}, memos: map[string]memo{}} }

// Activate is deploy.Deployer's.
func (d *machine) Activate(ctx context.Context, rs []deploy.Receipt) error {
	ts, err := readAll(rs)
	if err != nil {
		return err
	}
	before, err := d.look(ctx)
	if err != nil {
		return err
	}
	forward := newTurn()
	var wrong []error
	for _, t := range ts {
		wrong = append(wrong, before.forward(&forward, t))
	}
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("activating: %w", err)
	}
	err = d.turn(ctx, before, forward)
	if err == nil {
		return nil
	}
	ctx, cancel := mending(ctx)
	defer cancel()
	return errors.Join(fmt.Errorf("activating: %w", err), d.back(ctx, ts))
}

// Restore is deploy.Deployer's. One binding that somebody else changed does not
// hold the others.
func (d *machine) Restore(ctx context.Context, rs []deploy.Receipt) error {
	ts, err := readAll(rs)
	if err != nil {
		return err
	}
	return d.back(ctx, ts)
}

func (d *machine) back(ctx context.Context, ts []note) error {
	before, err := d.look(ctx)
	if err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	back := newTurn()
	var wrong []error
	for _, t := range ts {
		wrong = append(wrong, before.backward(&back, t))
	}
	wrong = append(wrong, d.turn(ctx, before, back))
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	return nil
}

// turn makes a turn and looks whether it changed what was meant and nothing else.
func (s shell) turn(ctx context.Context, before node, t turn) error {
	notes := []writing{}
	for id, m := range t.memos {
		if w := m.writing(id); w != before.memos[id].writing(id) {
			notes = append(notes, w)
		}
	}
	if len(t.moves)+len(t.deafen)+len(notes) == 0 {
		return nil
	}
	moves, deafen := append([]move{}, t.moves...), append([]string{}, t.deafen...) // [] and not null
	if _, err := s.run(ctx, switchScript, map[string]any{"moves": moves, "deafen": deafen, "notes": notes}); err != nil {
		return fmt.Errorf("switching bindings: %w", err)
	}
	if len(t.moves)+len(t.deafen) == 0 {
		return nil
	}
	after, err := s.look(ctx)
	if err != nil {
		return err
	}
	if wrong := changes(before, after, t.want, t.ports); len(wrong) > 0 {
		return fmt.Errorf("http.sys has not what was meant: %s", strings.Join(wrong, "; "))
	}
	return nil
}

// forward adds what makes a staged certificate live.
func (n node) forward(to *turn, t note) error {
	c, ok := n.find(t.Store, t.New)
	if !ok {
		return fmt.Errorf("the certificate %s is not in the store any more: stage anew", short(t.New))
	}
	m := n.memos[t.ID]
	if was, _ := m.live(); t.Only && was.Thumb != t.New && was.Thumb != t.Prev {
		return fmt.Errorf("the certificate of %s: %w", t.Place, errForeign)
	}
	for _, s := range t.Slots {
		v, err := n.point(s, t.New, c.store)
		if err != nil {
			return err
		}
		if _, planned := to.want[s.at()]; v != nil && (!planned || v.Create) {
			to.moves = append(to.moves, *v)
		}
		to.want[s.at()] = t.New
	}
	to.memos[t.ID] = m.promoted(t.New)
	return nil
}

// point is the move that gives a slot a certificate; nil: it has it.
func (n node) point(s slot, next, store string) (*move, error) {
	v, now := s.move(), n.hash(s)
	_, exists := n.binding(s)
	v.Thumb, v.Store = next, store
	switch {
	case s.Made && !exists && now == "":
		v.Create = true
	case !exists || now != next && now != s.Prev:
		return nil, fmt.Errorf("the binding %s: %w", s, errForeign)
	case now == next:
		return nil, nil
	}
	return &v, nil
}

// backward adds what makes live again what was at Stage.
func (n node) backward(to *turn, t note) error {
	var wrong []error
	for _, s := range t.Slots {
		_, planned := to.want[s.at()]
		v, err := n.undo(s, t.New)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		to.want[s.at()] = s.Prev
		if v != nil && (!planned || s.Made) {
			to.moves = append(to.moves, *v)
		}
	}
	m := n.memos[t.ID]
	if h, ok := m.held(t.New); ok && h.Role == live && t.New != t.before() {
		m = m.role(t.New, staged, "")
	}
	for _, h := range m.Held {
		if h.Thumb == t.before() {
			m = m.role(h.Thumb, live, "")
		}
	}
	if len(m.Held) > 0 {
		to.memos[t.ID] = m
	}
	return errors.Join(wrong...)
}

// before is what was live at Stage.
func (t note) before() string {
	if t.Only || len(t.Slots) == 0 {
		return t.Prev
	}
	return t.Slots[0].Prev
}

// undo is the move that gives a binding back what it had; nil: it has it.
func (n node) undo(s slot, next string) (*move, error) {
	v, now := s.move(), n.hash(s)
	_, exists := n.binding(s)
	if exists != s.Made && now == s.Prev {
		return nil, nil // with a made one: neither is there, as before
	}
	switch {
	case !exists || now != next && now != "":
		return nil, fmt.Errorf("the binding %s: %w", s, errForeign)
	case s.Made:
		v.Unbind, v.Drop = now != "", true
	case s.Prev == "":
		v.Unbind = true
	default:
		c, ok := n.find(s.Store, s.Prev)
		if !ok {
			return nil, fmt.Errorf("the binding %s had the certificate %s, which is not in the store any more", s, short(s.Prev))
		}
		v.Thumb, v.Store = s.Prev, c.store
	}
	return &v, nil
}

// hash is what http.sys has for a slot.
func (n node) hash(s slot) string {
	r, _ := n.record(s.at())
	return r.hash
}

// binding is a slot's as it is now; one whose flags were changed is another.
func (n node) binding(s slot) (binding, bool) {
	for _, b := range n.bindings {
		if b.Site == s.Site && b.Info == s.Info && b.at() == s.at() {
			return b, true
		}
	}
	return binding{}, false
}

var memoID = regexp.MustCompile(`^[0-9a-f]{16}$`)

// read takes a receipt apart.
func read(r deploy.Receipt) (note, error) {
	var t note
	if err := json.Unmarshal(r.Note, &t); err != nil {
		return note{}, fmt.Errorf("reading a receipt: %w", err)
	}
	right := memoID.MatchString(t.ID) && thumb.MatchString(t.New) && (t.Only || len(t.Slots) > 0)
	for _, s := range t.Slots {
		right = right && (s.Prev == "" || thumb.MatchString(s.Prev))
	}
	if !right {
		return note{}, errors.New("reading a receipt: it is not one of IIS: stage anew")
	}
	return t, nil
}

func readAll(rs []deploy.Receipt) ([]note, error) {
	var all []note
	for _, r := range rs {
		t, err := read(r)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}
