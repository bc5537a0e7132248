package issuetest

import (
	"encoding/base64"
	"strings"
	"time"

	"github.com/letsencrypt/pebble/v2/core"
)

// settle waits until Pebble has done, beside the request that finalized the order,
// all that belongs to it. Pebble v2.10.1 marks the replaced order there, and reads
// the mark without its lock when the next order names the same certificate. An
// order for which nothing is issued never settles; it is left after a while.
func (c *CA) settle(id string) {
	order := c.store.GetOrderByID(id)
	if order == nil {
		return
	}
	tick := time.NewTicker(100 * time.Microsecond) // Pebble tells nobody
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Second); !c.settled(order) && time.Now().Before(end); {
		<-tick.C
	}
}

func (c *CA) settled(order *core.Order) bool {
	order.RLock()
	began, issued, replaces := order.BeganProcessing, order.CertificateObject, order.Replaces
	order.RUnlock()
	if !began {
		return true // refused
	}
	if issued == nil {
		return false
	}
	if _, err := c.store.GetOrderByIssuedSerial(issued.ID); err != nil || replaces == "" {
		return err == nil
	}
	return c.replaced(replaces)
}

// replaced says whether the order of the certificate with this identifier (RFC
// 9773 §4.1) is marked as replaced, or is none that could be.
func (c *CA) replaced(certID string) bool {
	_, serial, _ := strings.Cut(certID, ".")
	raw, err := base64.RawURLEncoding.DecodeString(serial)
	if err != nil {
		return true
	}
	id, err := core.NewCertID(raw, []byte{}) // only the serial is looked at
	if err != nil {
		return true
	}
	original, err := c.store.GetOrderByIssuedSerial(id.SerialHex())
	if err != nil {
		return true
	}
	original.RLock()
	defer original.RUnlock()
	return original.IsReplaced
}
