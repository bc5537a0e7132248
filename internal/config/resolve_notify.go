package config

import (
	"cmp"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// The bounds of a ping, and what is so when nothing is said.
const (
	tellWait   = 30 * time.Second
	tellAgain  = 5 * time.Minute
	pingEvery  = 5 * time.Minute
	pingOften  = 30 * time.Second
	pingSeldom = 24 * time.Hour
)

// notifications fills in who is told of what.
func (c *resolver) notifications() {
	w := c.file.Notifications
	if w == nil {
		return
	}
	n := farm.Notifications{URL: c.dashboard(w), Wait: tellWait, Again: tellAgain}
	if w.Wait != nil {
		n.Wait = time.Duration(*w.Wait)
	}
	if w.Again != nil {
		n.Again = time.Duration(*w.Again)
	}
	for _, name := range slices.Sorted(maps.Keys(w.Receivers)) {
		n.Receivers = append(n.Receivers, c.receiver(name, w.Receivers[name]))
	}
	for _, one := range w.Routes {
		n.Routes = append(n.Routes, c.route(one, w.Receivers))
	}
	if w.Routes == nil && len(n.Receivers) > 0 {
		n.Routes = []farm.Route{{To: slices.Sorted(maps.Keys(w.Receivers)), Severity: farm.ForTicket}}
	}
	n.Ping = c.ping(w.Ping)
	c.whole.Notifications = n
}

// dashboard checks the URL that messages link to.
func (c *resolver) dashboard(w *notifications) string {
	u, err := url.Parse(w.URL)
	if w.URL != "" && (err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http") {
		c.say(w.at.field("url"), "this is no URL of a dashboard", "write https://certfarm.example.com, without a user or password in it")
	}
	return strings.TrimSuffix(w.URL, "/")
}

// receiver lets the kind check its options.
func (c *resolver) receiver(name string, w receiver) farm.Receiver {
	c.checkName(key(w.at), name)
	got := farm.Receiver{Name: name, Kind: cmp.Or(w.Kind, name), Secrets: references(w.Secrets)}
	k, known := c.words.Receivers[got.Kind]
	if !known {
		c.unlisted(w.at, "kind", "there is no kind of receiver "+quote(got.Kind),
			cmp.Or(didYouMean(got.Kind, slices.Collect(maps.Keys(c.words.Receivers))), "`certfarm notify kinds` lists them"))
		return got
	}
	got.Options = c.checked(k, "a receiver of kind "+got.Kind, w.at, w.Options, got.Secrets)
	return got
}

// route checks that what a route names is there.
func (c *resolver) route(w route, receivers map[string]receiver) farm.Route {
	got := farm.Route{
		To: w.To, Severity: farm.Severity(cmp.Or(w.Severity, string(farm.ForTicket))), Sites: w.Sites, Tags: w.Tags, Events: w.Events,
		Quiet: c.windows(w.at.field("quiet"), w.Quiet),
	}
	for i, name := range w.To {
		if _, ok := receivers[name]; !ok {
			c.say(w.at.field("to").item(i), "there is no receiver "+quote(name), didYouMean(name, slices.Collect(maps.Keys(receivers))))
		}
	}
	for i, name := range w.Sites {
		if _, ok := c.file.Sites[name]; !c.anySite("site "+name, ok) {
			c.say(w.at.field("sites").item(i), "there is no site "+quote(name), didYouMean(name, slices.Collect(maps.Keys(c.file.Sites))))
		}
	}
	for i, tag := range w.Tags {
		if !c.anySite("tag "+tag, slices.ContainsFunc(c.whole.Sites, func(s farm.Site) bool { return slices.Contains(s.Tags, tag) })) {
			c.say(w.at.field("tags").item(i), "no site has the tag "+quote(tag), "")
		}
	}
	return got
}

// ping checks the sign of life.
func (c *resolver) ping(w *ping) *farm.Ping {
	if w == nil {
		return nil
	}
	got := &farm.Ping{URL: farm.SecretRef(w.URL), Every: pingEvery, AllowPrivate: w.AllowPrivate}
	if w.Every != nil {
		got.Every = time.Duration(*w.Every)
		if got.Every < pingOften || got.Every > pingSeldom {
			c.say(w.at.field("every"), "a ping every "+got.Every.String()+" is too often or too seldom", "write a time from 30s to 1d, as in 5m")
		}
	}
	for i, text := range w.AllowPrivate {
		_, noNet := netip.ParsePrefix(text)
		if _, err := netip.ParseAddr(text); noNet != nil && err != nil { // as the guard reads it
			c.say(w.at.field("allow_private").item(i), quote(text)+" is no network", "as in 10.1.2.0/24 or 192.168.1.7")
		}
	}
	return got
}
