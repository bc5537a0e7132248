package lab

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestMeterSeesWhatIsServedWhen(t *testing.T) {
	b, ca, old := newServing(t, NodeConfig{})
	m := StartMeter(MeterConfig{Address: b.HTTPSAddr(), SNI: "shop.test", Every: 5 * time.Millisecond})
	until := func(what string, holds func(Reading) bool) {
		t.Helper()
		eventually(t, what, func() bool { return holds(m.Reading()) })
	}
	until("the old is seen", func(r Reading) bool { return slices.Equal(r.Served(), []string{old}) })
	fingerprint := b.renew(ca)
	b.ok("webd reload")
	until("the new is seen", func(r Reading) bool { return slices.Contains(r.Served(), fingerprint) })
	if r := m.Reading(); r.Failures != 0 {
		t.Errorf("a reload was seen as an outage: %+v", r.Spans)
	}
	must(t, b.Set(Fault{Kind: Down}))
	until("the outage is seen", func(r Reading) bool { return r.Failures > 2 })
	must(t, b.Clear())
	until("the end of the outage is seen", func(r Reading) bool { return r.Spans[len(r.Spans)-1].Fingerprint == fingerprint })

	r := m.Close()
	if len(r.Spans) != 4 || r.Spans[2].Error == "" || r.Spans[2].Tries != r.Failures || r.Outage <= 0 {
		t.Errorf("%+v", r)
	}
	sum := 0
	for i, s := range r.Spans {
		sum += s.Tries
		if i > 0 && s.From.Before(r.Spans[i-1].To) {
			t.Errorf("spans out of order: %+v", r.Spans)
		}
	}
	if sum != r.Tries {
		t.Errorf("%d tries in spans, %d in all", sum, r.Tries)
	}
	if again := m.Close(); again.Tries != r.Tries {
		t.Error("goes on after Close")
	}
}

func TestReadingIsBounded(t *testing.T) {
	var r Reading
	at := time.Unix(0, 0)
	for i := range 3 * maxSpans {
		r.note([]string{"a", "b"}[i%2], nil, at.Add(time.Duration(i)))
	}
	r.note("", errors.New("refused"), at.Add(time.Hour))
	r.note("", errors.New("refused"), at.Add(2*time.Hour))
	r.note("a", nil, at.Add(3*time.Hour))
	if len(r.Spans) != maxSpans || r.Tries != 3*maxSpans+3 || r.Failures != 2 || r.Outage != 2*time.Hour {
		t.Errorf("%d spans, %d tries, %d failures, outage %s", len(r.Spans), r.Tries, r.Failures, r.Outage)
	}
}

func TestAwaitSaysWhatItSaw(t *testing.T) {
	b, _, _ := newServing(t, NodeConfig{})
	ctx := soon(t)
	go func() { _ = b.Set(Fault{Kind: Down}) }()
	must(t, Await(ctx, b.HTTPSAddr(), "shop.test", ""))
}
