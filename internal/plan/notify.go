package plan

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// notifications is who is told of what, as farm.yaml says it.
func notifications(n farm.Notifications) []value {
	const at = "notifications."
	all := []value{{at + "url", n.URL}, {at + "wait", span(n.Wait)}, {at + "again", span(n.Again)}}
	for _, r := range n.Receivers {
		one := at + "receivers." + r.Name
		all = append(all, value{one + ".kind", r.Kind})
		for _, name := range slices.Sorted(maps.Keys(r.Secrets)) {
			all = append(all, value{one + ".secrets." + name, r.Secrets[name].String()})
		}
		all = append(all, options(one+".options.", r.Options)...)
	}
	for i, r := range n.Routes {
		all = append(all, value{fmt.Sprintf("%sroutes[%d]", at, i), route(r)})
	}
	if p := n.Ping; p != nil {
		text := p.URL.String() + " every " + p.Every.String()
		if len(p.AllowPrivate) > 0 {
			text += ", allowed in " + list(p.AllowPrivate)
		}
		all = append(all, value{at + "ping", text})
	}
	return all
}

// route says what goes where, as one would tell it.
func route(r farm.Route) string {
	text := string(r.Severity) + " to " + list(r.To)
	for _, more := range []value{
		{" for sites ", list(r.Sites)}, {" for tags ", list(r.Tags)}, {" of events ", list(r.Events)}, {", quiet ", windows(r.Quiet)},
	} {
		if more.text != "" {
			text += more.name + more.text
		}
	}
	return text
}

// span is a length of time; none is said where it is zero.
func span(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}
