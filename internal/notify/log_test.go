package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certfarm/certfarm/internal/farm"
)

func TestLog(t *testing.T) {
	var out bytes.Buffer
	l := Log{slog.New(slog.NewJSONHandler(&out, nil))}
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	err := l.Notify(t.Context(), []farm.Event{
		{ID: "1", At: at, Kind: "rollout.started", Level: farm.Info, Site: "shop", Text: "begins"},
		{ID: "2", At: at, Kind: "step.stuck", Level: farm.Alarm, Node: "web-1", Text: "stuck", Hint: "look at web-1"},
		{ID: "3", At: at, Kind: "drift", Level: farm.Warn, Text: "drifted"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	for d := json.NewDecoder(&out); d.More(); {
		var m map[string]any
		if err := d.Decode(&m); err != nil {
			t.Fatal(err)
		}
		delete(m, "time")
		got = append(got, m)
	}
	day := "2026-06-01T12:00:00Z"
	want := []map[string]any{
		{"level": "INFO", "msg": "begins", "at": day, "event": "rollout.started", "id": "1", "site": "shop"},
		{"level": "ERROR", "msg": "stuck", "at": day, "event": "step.stuck", "id": "2", "node": "web-1", "hint": "look at web-1"},
		{"level": "WARN", "msg": "drifted", "at": day, "event": "drift", "id": "3"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

type deaf struct{ told int }

func (d *deaf) Notify(context.Context, []farm.Event) error {
	d.told++
	return errors.New("deaf")
}

func TestManyTellsAll(t *testing.T) {
	a, b := new(deaf), new(deaf)
	err := Many{a, Log{slog.New(slog.DiscardHandler)}, b}.Notify(t.Context(), []farm.Event{{Text: "x"}})
	if err == nil || a.told != 1 || b.told != 1 {
		t.Errorf("told %d and %d, error %v", a.told, b.told, err)
	}
	if err := (Many{}).Notify(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
