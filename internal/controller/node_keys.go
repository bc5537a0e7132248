package controller

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A member whose node decides for itself has a key that was made there and stays there:
// its agent or receiver sends a signing request, and is sent a chain. No step here has
// the key at hand.

// requestFrom has the node of a member make the key and the signing request of an
// order. If the answer is lost the node is asked again, and makes another key.
func (c *Controller) requestFrom(ctx context.Context, o ordering, n farm.Node) farm.Result {
	s, err := c.ownNode(ctx, o.order.Farm, n, o.lease)
	if err != nil {
		return c.unasked(o, n.Name, err)
	}
	s.Lane = o.lane
	a, err := remote.Ask(ctx, s, remote.Call{Do: remote.DoRequest, Names: o.order.Names, KeyType: o.order.KeyType})
	if err == nil {
		err = fits(a.CSR, o.order)
	}
	switch {
	case errors.Is(err, remote.ErrDenied):
		return c.failed(o, fmt.Errorf("a key on node %s: %w", n.Name, err))
	case err != nil:
		return c.unasked(o, n.Name, err)
	}
	o.order.CSR, o.order.Key, o.order.Tries, o.order.Error = a.CSR, farm.KeyRef{Node: n.Name}, 0, ""
	return farm.Result{Value: ordered{order: o.order}, Again: c.Now()}
}

// unasked has a node that made no key asked again after a while.
func (c *Controller) unasked(o ordering, node string, err error) farm.Result {
	o.order.Tries++
	o.order.Error = fmt.Sprintf("no key was made on node %s: %v", node, err)
	o.order.Again = c.Now().Add(min(orderPause(o.order.Tries), 10*time.Minute))
	return farm.Result{Value: ordered{order: o.order}, Again: o.order.Again}
}

// askAgain has the orders of a site go on that wait for a key of its node.
func askAgain(ctx context.Context, tx *store.Tx, farmName, site string) error {
	orders, err := tx.Orders(ctx, farmName, store.OrderQuery{Site: site, Limit: 8})
	for _, o := range orders {
		if o.State.Ended() || o.CSR != nil || o.Tries == 0 {
			continue
		}
		o.Tries, o.Again = 0, time.Time{}
		err = errors.Join(err, tx.PutOrder(ctx, o), armOrder(ctx, tx, o))
	}
	return err
}

// fits refuses a signing request that is not for what was asked: a node must not have
// other names signed, nor another sort of key.
func fits(csr []byte, o farm.Order) error {
	r, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return fmt.Errorf("its signing request cannot be used: %w", err)
	}
	names := slices.Clone(r.DNSNames)
	for _, ip := range r.IPAddresses {
		names = append(names, ip.String())
	}
	if !sameSet(names, o.Names) || len(r.EmailAddresses) > 0 || len(r.URIs) > 0 {
		return fmt.Errorf("its signing request is for %s, and %s was asked", strings.Join(names, ", "), strings.Join(o.Names, ", "))
	}
	kind := ""
	switch k := r.PublicKey.(type) {
	case *ecdsa.PublicKey:
		kind = fmt.Sprintf("ec%d", k.Params().BitSize)
	case *rsa.PublicKey:
		kind = fmt.Sprintf("rsa%d", k.N.BitLen())
	}
	if kind != string(o.KeyType) {
		return fmt.Errorf("its key is %q, and %s was asked", kind, o.KeyType)
	}
	return nil
}

// keptAt is the node on which a member's next key is made, because it decides for
// itself; none: the key is made here.
func keptAt(ctx context.Context, tx *store.Tx, farmName string, site farm.Site) (n farm.Node, own bool, err error) {
	if site.Member == nil {
		return n, false, nil
	}
	n, err = tx.Node(ctx, farmName, site.Member.Node)
	return n, err == nil && decides(n), unlessGone(err)
}

// atHand refuses a version whose key is held on another node than the target's.
func atHand(v farm.Version, t farm.Target) error {
	for _, l := range v.Leaves {
		if l.Key.Node != "" && l.Key.Node != t.Node {
			return &faultError{farm.NodeFault, "the key of " + farm.Short(l.Fingerprint) + " is held on node " + l.Key.Node + ", and was never anywhere else"}
		}
	}
	return nil
}

// heldOn are the keys of a version that are held on a node, and that node.
func heldOn(v farm.Version) (node string, keys []string) {
	for _, l := range v.Leaves {
		if l.Key.Node != "" {
			node, keys = l.Key.Node, append(keys, publicKey(l.Chain))
		}
	}
	return node, keys
}

// armForget has a node forget the keys of a version that it holds.
func armForget(ctx context.Context, tx *store.Tx, v farm.Version) error {
	if node, _ := heldOn(v); node == "" {
		return nil
	}
	return arm(ctx, tx, v.Farm, "forget", v.ID, tx.Now())
}

// armForgetUnused has a node forget a key for which no certificate came.
func armForgetUnused(ctx context.Context, tx *store.Tx, o farm.Order) error {
	if o.Key.Node == "" || o.State != farm.OrderFailed {
		return nil
	}
	return arm(ctx, tx, o.Farm, "forget", o.ID, tx.Now())
}

// A lodged is what a node is to forget: the keys of a version, or of an order that
// failed.
type lodged struct {
	version farm.Version
	order   farm.Order
	node    string
	keys    []string
}

// lodging reads it; without keys where there is nothing to forget any more.
func lodging(ctx context.Context, tx *store.Tx, farmName, id string) (l lodged, err error) {
	l.version, err = tx.Version(ctx, farmName, id)
	if err == nil {
		l.node, l.keys = heldOn(l.version)
		return l, nil
	}
	if l.order, err = tx.Order(ctx, farmName, id); err != nil || l.order.Key.Node == "" {
		return l, unlessGone(err)
	}
	r, err := x509.ParseCertificateRequest(l.order.CSR)
	if err != nil {
		return l, fmt.Errorf("signing request of order %s: %w", id, err)
	}
	l.node, l.keys = l.order.Key.Node, []string{farm.Fingerprint(r.RawSubjectPublicKeyInfo)}
	return l, nil
}

// lodgedNoMore is what came of asking a node to forget keys.
type lodgedNoMore struct{ gone bool }

// workForget has a node forget keys. One that is gone from farm.yaml is nobody's to
// ask any more.
func (c *Controller) workForget(ctx context.Context, j farm.Job) farm.Result {
	var l lodged
	var n farm.Node
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		if l, err = lodging(ctx, tx, j.Farm, j.Subject); err == nil && len(l.keys) > 0 {
			n, err = tx.Node(ctx, j.Farm, l.node)
		}
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return farm.Result{Value: lodgedNoMore{gone: true}}
	case err != nil || len(l.keys) == 0:
		return farm.Result{Err: err}
	}
	s, err := c.ownNode(ctx, j.Farm, n, deploy.Lease{Owner: c.Owner, Epoch: j.Epoch, Nonce: j.Nonce})
	if err == nil {
		s.Lane = "forget " + j.Subject
		ctx, cancel := context.WithTimeout(ctx, forgetWithin)
		defer cancel()
		_, err = remote.Ask(ctx, s, remote.Call{Do: remote.DoForget, Keys: l.keys})
	}
	if err != nil {
		return farm.Result{Err: err, Again: c.Now().Add(min(time.Duration(j.Attempt)*c.Pace.Late, time.Hour))}
	}
	return farm.Result{Value: lodgedNoMore{}}
}

// forgetWithin bounds the wait for a node that forgets keys.
const forgetWithin = time.Minute

// applyForget writes that keys are nowhere any more.
func (c *Controller) applyForget(ctx context.Context, tx *store.Tx, f farm.Finished) error {
	r, ok := f.Result.Value.(lodgedNoMore)
	if !ok {
		return nil
	}
	l, err := lodging(ctx, tx, f.Job.Farm, f.Job.Subject)
	if err != nil || len(l.keys) == 0 {
		return err
	}
	if l.version.ID == "" {
		l.order.Key = farm.KeyRef{}
		return tx.PutOrder(ctx, l.order)
	}
	v := l.version
	for i := range v.Leaves {
		if v.Leaves[i].Key.Node != "" {
			v.Leaves[i].Key = farm.KeyRef{}
		}
	}
	e := farm.Event{
		Farm: v.Farm, Kind: "keys.erased", Site: v.Site, Node: l.node, Version: v.ID,
		Text: fmt.Sprintf("the key of %s is erased on node %s, where it was held", farm.Short(v.Leaf()), l.node),
	}
	if r.gone {
		e.Level, e.Text = farm.Warn, fmt.Sprintf("the key of %s was held on node %s, which is gone from farm.yaml: it is not erased there by us", farm.Short(v.Leaf()), l.node)
		e.Hint = "erase the state folder of its agent"
	}
	return errors.Join(tx.PutVersion(ctx, v), tell(ctx, tx, e), armCompromise(ctx, tx, v.Farm, v.Site))
}
