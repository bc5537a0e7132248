package http01

import (
	"context"
	"net/netip"
	"sync"

	"github.com/certfarm/certfarm/internal/lookup"
)

// A book remembers the addresses that were looked up for one preflight: a
// hundred nodes that redirect to one host are one question to DNS.
type book struct {
	client lookup.Client

	mu    sync.Mutex
	pages map[string]*page
}

// A page is one host, being looked up by the first who asks.
type page struct {
	done      chan struct{}
	addresses []netip.Addr
	err       error
}

func (b *book) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	b.mu.Lock()
	p, known := b.pages[host]
	if !known {
		p = &page{done: make(chan struct{})}
		b.pages[host] = p
	}
	b.mu.Unlock()
	if !known {
		p.addresses, p.err = b.client.Addresses(ctx, host)
		close(p.done)
	}
	select {
	case <-p.done:
		return p.addresses, p.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
