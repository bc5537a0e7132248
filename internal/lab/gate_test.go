package lab

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func TestGateShutsAndOpens(t *testing.T) {
	g, err := newGate(0)
	must(t, err)
	defer func() { must(t, g.Close()) }()
	for range 3 {
		client, err := new(net.Dialer).DialContext(soon(t), "tcp", g.addr)
		must(t, err)
		server, err := g.Accept()
		must(t, err)
		g.shut()
		g.shut()
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlives the shutting")
		}
		_ = client.Close()
		_ = server.Close()
		if canConnect(g.addr) {
			t.Error("a shut gate takes connections")
		}
		must(t, g.open())
		must(t, g.open())
	}
	must(t, g.Close())
	must(t, g.open())
	if canConnect(g.addr) {
		t.Error("a closed gate was opened")
	}
	if _, err := g.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
}

func TestSlowConnIsLateAndWhole(t *testing.T) {
	const rtt = 40 * time.Millisecond
	g, err := newGate(rtt)
	must(t, err)
	defer func() { must(t, g.Close()) }()
	client, err := new(net.Dialer).DialContext(soon(t), "tcp", g.addr)
	must(t, err)
	defer func() { _ = client.Close() }()
	server, err := g.Accept()
	must(t, err)
	sent := bytes.Repeat([]byte("0123456789"), 100_000)
	begun := time.Now()
	for part := range bytesIn(sent, 10_000) {
		_, err := server.Write(part)
		must(t, err)
	}
	if took := time.Since(begun); took > rtt {
		t.Errorf("writing waits: %s", took)
	}
	must(t, server.Close()) // what is on its way still arrives
	if _, err := server.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing after the end: %v", err)
	}
	got, err := io.ReadAll(client)
	took := time.Since(begun)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d: %v", len(got), len(sent), err)
	}
	if took < 2*rtt || took > 20*rtt {
		t.Errorf("took %s, want connect and one way back of %s", took, rtt)
	}
}

func bytesIn(b []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 && yield(b[:min(size, len(b))]) {
			b = b[min(size, len(b)):]
		}
	}
}
