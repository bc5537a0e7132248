package config

import (
	"maps"
	"slices"
)

// siteIssuers are the site's issuer, those that stand in for it, and its profile.
func (c *resolver) siteIssuers(w site) (first string, others []string, profile string) {
	at, all := w.at.field("issuer"), c.file.Issuers
	if at == w.at { // it is not said
		switch len(all) {
		case 0: // which was said
		case 1:
			first = c.whole.Issuers[0].Name
		default:
			c.say(key(w.at), `"issuer" is missing`, thereIs(slices.Collect(maps.Keys(all))))
		}
		return first, nil, orElse(w.Profile, all[first].Profile)
	}
	if len(w.Issuer) == 0 {
		c.say(at, "there is no issuer", thereIs(slices.Collect(maps.Keys(all))))
		return "", nil, w.Profile
	}
	for i, name := range w.Issuer {
		p := at.item(i)
		if _, known := all[name]; !known && name != "" && len(all) > 0 {
			c.say(p, "there is no issuer "+quote(name), didYouMean(name, slices.Collect(maps.Keys(all))))
		}
		if slices.Contains(w.Issuer[:i], name) {
			c.say(p, "issuer "+quote(name)+" stands here twice", "")
		}
	}
	if len(w.Issuer) > 1 {
		others = w.Issuer[1:]
	}
	return w.Issuer[0], others, orElse(w.Profile, all[w.Issuer[0]].Profile)
}
