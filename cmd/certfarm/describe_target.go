package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
)

// A targetItem is a target in JSON, with the look through its place.
type targetItem struct {
	controller.TargetDetail
	Audit      *controller.Audit `json:"audit,omitempty"`
	AuditError string            `json:"audit_error,omitempty"`
}

// describeTarget tells what is known of a target, and then, for kinds that can,
// what a look through its whole place shows: that may take a while, and fail.
func (a *app) describeTarget(ctx context.Context, c *client.Client, farmName, name string) error {
	t, err := c.Target(ctx, farmName, name)
	if err != nil {
		return err
	}
	item := targetItem{TargetDetail: t}
	if !a.json {
		a.targetFacts(t)
		a.targetSights(t)
	}
	if t.Audits {
		found, err := c.Audit(ctx, farmName, name)
		item.Audit = &found
		if err != nil {
			item.Audit, item.AuditError = nil, err.Error()
		}
	}
	if a.json {
		return a.object(object{"target", farmName, item})
	}
	a.targetAudit(item)
	return nil
}

func (a *app) targetFacts(t controller.TargetDetail) {
	should := shorts(t.Wants)
	if len(t.Wants) > 0 {
		should += ", valid until " + date(t.NotAfter)
	}
	last := ""
	if t.LastWave {
		last = "last: it cannot go back"
	}
	a.facts([]fact{
		{"Target", t.Name, bold},
		{"Sync", t.Sync, syncTone(t.Sync)},
		{"Site", t.Site, plain},
		{"Node", t.Node, plain},
		{"Kind", strings.TrimSuffix(t.Kind+": "+t.About, ": "), plain},
		{"Options", strings.Join(settings(t.Options), "\n"), plain},
		{"Secrets", strings.Join(settings(t.Secrets), "\n"), plain},
		{"Labels", strings.Join(settings(t.Labels), ", "), plain},
		{"Writes to", strings.Join(t.Places, "\n"), plain},
		{"Live with", t.Group, plain},
		{"Readers", readers(t.Readers), plain},
		{"Its own", strings.Join(settings(t.Own), "\n"), plain},
		{"Wave", last, plain},
		{"Fence", t.Fence, plain},
		{"Should serve", should, plain},
		{"Serves", shorts(t.Serves), plain},
		{"Drift", a.drifted(t), warn},
		{"Looked", a.when(t.Looked), plain},
		{"Reach", t.Reach, plain},
		{"Trouble", t.Trouble, warn},
	})
}

// settings are options, labels or secrets, a line each, by name.
func settings[V any](all map[string]V) (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text := fmt.Sprint(all[name])
		if _, isText := any(all[name]).(string); !isText {
			if raw, err := json.Marshal(all[name]); err == nil {
				text = string(raw)
			}
		}
		lines = append(lines, name+": "+oneLine(text))
	}
	return lines
}

// readers names the machines that see a change at the same moment.
func readers(all []string) string {
	switch len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	}
	return fmt.Sprintf("%d, which see a change at the same moment: %s", len(all), some(all, 6))
}

func (a *app) drifted(t controller.TargetDetail) string {
	switch {
	case t.Drift != "":
		return oneLine(t.Drift) + ", since " + a.when(t.Since)
	case t.Late:
		return "it missed the newest version, and is brought there when it answers"
	}
	return ""
}

func (a *app) targetSights(t controller.TargetDetail) {
	a.section("Endpoints", len(t.Endpoints))
	var rows [][]cell
	for _, e := range t.Endpoints {
		row := []cell{{text: "  " + e.Address}, {text: dash(e.SNI)}, {"not looked at yet", faint}, {text: "–"}}
		for _, s := range t.Sights {
			if s.Endpoint == e {
				saw, tone := seen(s)
				row[2], row[3] = cell{saw, tone}, cell{text: a.when(s.At)}
			}
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		a.table([]string{"  ENDPOINT", "NAME", "SERVES", "LOOKED"}, rows)
	}
}

// targetAudit shows what the look through the place found.
func (a *app) targetAudit(t targetItem) {
	switch {
	case t.AuditError != "":
		a.section("Audit", 1)
		a.print("  %s", a.tint(a.out, bad, "! the place could not be looked through: "+oneLine(t.AuditError)))
	case t.Audit == nil:
	case len(t.Audit.Findings) == 0:
		a.section("Audit", 1)
		a.print("  %s", a.tint(a.out, good, "all is as it should be"))
	default:
		a.section("Audit", 1)
		for _, f := range t.Audit.Findings {
			a.print("  %s %s", a.tint(a.out, warn, "! "+f.Place+": "+f.Trouble+":"), oneLine(f.Problem))
			if f.Hint != "" {
				a.print("      %s", a.tint(a.out, faint, oneLine(f.Hint)))
			}
		}
	}
}
