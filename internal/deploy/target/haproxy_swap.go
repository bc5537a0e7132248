package target

import (
	"bytes"
	"context"
	"crypto/sha1" // HAProxy shows no other fingerprint
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy/haproxyctl"
	"github.com/certfarm/certfarm/internal/encode"
)

// The bounds on the wait for another's transaction.
const (
	cliPatience = time.Second
	cliPause    = 100 * time.Millisecond
)

// errUnknown says that HAProxy has not loaded a certificate of the name.
var errUnknown = errors.New("HAProxy does not know it")

// A busyError is a transaction that is open for another certificate.
type busyError struct{ name string }

// Error says whose it is and how to end it.
func (e *busyError) Error() string {
	return fmt.Sprintf("another transaction is open, for %s: if nobody is at work there, end it with `abort ssl cert %s`", e.name, e.name)
}

// swap makes a running HAProxy serve a certificate under a name:
//
//	abort      a transaction of the name that was left open
//	set        the reply must say that one was *created*, for this name
//	show *NAME what is about to be committed must be ours
//	commit
//	show NAME  what is served must be ours
//
// Whenever something else is seen, the transaction is aborted.
func (r runtime) swap(ctx context.Context, name string, text []byte) error {
	leaf, err := encode.Leaf(text)
	if err != nil {
		return err
	}
	known, err := r.cli.show(ctx, name)
	if err != nil {
		return err
	}
	if known == "" {
		if err := r.introduce(ctx, name); err != nil {
			return err
		}
	}
	if err := r.clear(ctx, name); err != nil {
		return err
	}
	if err := r.commit(ctx, name, text, leaf); err != nil {
		return errors.Join(err, r.drop(ctx, name))
	}
	now, err := r.cli.show(ctx, name)
	if err != nil {
		return err
	}
	if !shows(now, leaf) {
		return fmt.Errorf("HAProxy reports success and has another certificate than was set (SHA-1 %s): is somebody else changing certificates there?", sha1Of(now))
	}
	if r.list != "" && !strings.Contains(now, "Status: Used") {
		return r.enlist(ctx, name)
	}
	return nil
}

// commit sets and commits within one transaction of the name.
func (r runtime) commit(ctx context.Context, name string, text []byte, leaf *x509.Certificate) error {
	reply, err := r.cli.ask(ctx, "set ssl cert "+name+" <<\n"+payload(text)+"\n")
	if err != nil {
		return err
	}
	if m := opened.FindStringSubmatch(reply); m == nil {
		return fmt.Errorf("it was refused: %s", reply)
	} else if m[1] != "created" || m[2] != name {
		if m[2] != name { // ours is in the transaction of another: it must never be committed
			return errors.Join(&busyError{m[2]}, r.drop(ctx, m[2]))
		}
		return &busyError{name}
	}
	pending, err := r.cli.show(ctx, "*"+name)
	if err != nil {
		return err
	}
	if !shows(pending, leaf) {
		return &busyError{name}
	}
	if reply, err = r.cli.ask(ctx, "commit ssl cert "+name+"\n"); err != nil {
		return err
	}
	if !strings.Contains(reply, "Success!") {
		return fmt.Errorf("the commit was refused: %s", reply)
	}
	return nil
}

// The replies that name a transaction.
var (
	opened  = regexp.MustCompile(`(?m)^Transaction (created|updated) for certificate (\S+)!$`)
	ongoing = regexp.MustCompile(`(?m)^The ongoing transaction is about '([^']+)'`)
)

// clear ends a transaction that was left open: of this name, or of another of our
// store, since nobody else of us is here. A stranger's is waited for.
func (r runtime) clear(ctx context.Context, name string) error {
	limit := time.NewTimer(cliPatience)
	defer limit.Stop()
	for {
		reply, err := r.cli.ask(ctx, "abort ssl cert "+name+"\n")
		if err != nil {
			return err
		}
		m := ongoing.FindStringSubmatch(reply)
		if m == nil {
			return nil
		}
		to, err := r.links.Readlink(ctx, m[1])
		if err == nil && strings.HasPrefix(to, strings.TrimSuffix(r.Store, "/")+"/") {
			if err := r.drop(ctx, m[1]); err != nil {
				return err
			}
			continue
		}
		pause := time.NewTimer(cliPause)
		select {
		case <-pause.C:
		case <-limit.C:
			pause.Stop()
			return &busyError{m[1]}
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
	}
}

// drop aborts a transaction, even after the call's own time.
func (r runtime) drop(ctx context.Context, name string) error {
	ctx, cancel := mending(ctx)
	defer cancel()
	_, err := r.cli.ask(ctx, "abort ssl cert "+name+"\n")
	return err
}

// introduce makes a name known that HAProxy has not loaded.
func (r runtime) introduce(ctx context.Context, name string) error {
	if r.list == "" {
		return fmt.Errorf("%w: a reload makes it known, if its configuration names %s", errUnknown, name)
	}
	reply, err := r.cli.ask(ctx, "new ssl cert "+name+"\n")
	if err == nil && !strings.HasPrefix(reply, "New empty certificate store") {
		err = fmt.Errorf("%w, and takes no new one: %s", errUnknown, reply)
	}
	return err
}

// enlist puts a certificate into the running crt-list.
func (r runtime) enlist(ctx context.Context, name string) error {
	reply, err := r.cli.ask(ctx, "add ssl crt-list "+r.list+" "+name+"\n")
	if err == nil && !strings.Contains(reply, "Success!") {
		err = fmt.Errorf("adding it to the crt-list %s was refused: %s", r.list, reply)
	}
	return err
}

// payload is a PEM text without blank lines, which would end it.
func payload(text []byte) string {
	var out strings.Builder
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out.Write(line)
			out.WriteByte('\n')
		}
	}
	return out.String()
}

// shows reports that what HAProxy says of a certificate is said of this leaf.
func shows(text string, leaf *x509.Certificate) bool {
	sum := sha1.Sum(leaf.Raw)
	return strings.Contains(strings.ToUpper(text), "SHA1 FINGERPRINT: "+strings.ToUpper(hex.EncodeToString(sum[:]))+"\n")
}

// sha1Of is the fingerprint in what HAProxy says of a certificate: of its many lines
// the one by which a person finds the certificate.
func sha1Of(text string) string {
	for line := range strings.Lines(text) {
		if sum, is := strings.CutPrefix(strings.TrimSpace(line), "SHA1 FingerPrint: "); is {
			return sum
		}
	}
	return "not shown"
}

// cli is HAProxy's command line, as far as certificates go.
type cli struct{ haproxyctl.Line }

// show is what HAProxy says of a certificate, or with a * before its name of what
// is about to be committed; empty: it has none.
func (c cli) show(ctx context.Context, name string) (string, error) {
	reply, err := c.ask(ctx, "show ssl cert "+name+"\n")
	switch {
	case err != nil:
		return "", err
	case strings.HasPrefix(reply, "Filename: "):
		return reply + "\n", nil
	case strings.HasPrefix(reply, "Can't display the certificate"):
		return "", nil
	}
	return "", fmt.Errorf("%w: %s does not speak of certificates (it takes HAProxy 2.2 or newer, and `level admin`): %.200q", errDown, c.Address, reply)
}

// ask is haproxyctl's, in the words of the engine.
func (c cli) ask(ctx context.Context, text string) (string, error) {
	reply, err := c.Ask(ctx, text)
	if errors.Is(err, haproxyctl.ErrDown) {
		err = fmt.Errorf("%w: %w", errDown, err)
	}
	return reply, err
}
