package rollout_test

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/rollout"
)

const (
	day      = 24 * time.Hour
	lifetime = 90 * day
)

// version is a version of which a share of the life is left at noon.
func version(id string, life float64) farm.VersionFacts {
	left := time.Duration(life * float64(lifetime))
	return farm.VersionFacts{ID: id, NotBefore: noon.Add(left - lifetime), NotAfter: noon.Add(left)}
}

// newStory lays out a farm from words such as targets=a,b,c. An option for
// single targets is written a:VALUE,b:VALUE.
func newStory(t *testing.T, out *bytes.Buffer, words []string) *story {
	st := &story{T: t, out: out, fixed: map[string]bool{}}
	o := storyFarm{labels: map[string]map[string]string{}, life: 1.0 / 2}
	o.start = rollout.Start{
		ID: "r1", Farm: "home", Site: "shop", Reason: "story", Now: noon, To: version("v2", 1),
		Policy: farm.Policy{MaxParallel: 1, HealthyDeadline: 30 * time.Second},
	}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		set, known := farmOptions[key]
		if !known {
			t.Fatalf("farm: no such option: %s", key)
		}
		if err := set(&o, st, value); err != nil {
			t.Fatalf("farm: %s: %v", word, err)
		}
	}
	for _, name := range o.targets {
		o.start.Targets = append(o.start.Targets, o.target(name))
	}
	r, err := rollout.New(o.start)
	if err != nil {
		st.say("refused: %v", err)
		return st
	}
	st.world = newWorld(r, noon)
	commands["waves"](st, nil)
	return st
}

type storyFarm struct {
	start   rollout.Start
	targets []string
	life    float64
	groups  map[string]string
	lives   map[string]string
	also    map[string]string
	from    map[string]string
	last    map[string]string
	labels  map[string]map[string]string // by target
}

func (o *storyFarm) target(name string) rollout.Target {
	t := rollout.Target{Target: farm.Target{Name: name, Node: name, Labels: o.labels[name]}}
	if g, shared := o.groups[name]; shared {
		t.Node, t.Group = "shared", g
	}
	_, t.LastWave = o.last[name]
	v := version("v1", o.life)
	if life, own := o.lives[name]; own {
		share, _ := strconv.ParseFloat(life, 64)
		v = version("v0", share)
	}
	switch v.State = farm.VersionState(o.from[name]); v.State {
	case "none":
	default:
		t.From = []farm.VersionFacts{v}
	}
	if life, two := o.also[name]; two {
		share, _ := strconv.ParseFloat(life, 64)
		t.From = append(t.From, version("v1 rsa", share))
	}
	return t
}

var farmOptions = map[string]func(o *storyFarm, st *story, value string) error{
	"targets":  func(o *storyFarm, _ *story, v string) error { o.targets = strings.Split(v, ","); return nil },
	"canary":   func(o *storyFarm, _ *story, v string) error { return share(&o.start.Policy.Canary, v) },
	"budget":   func(o *storyFarm, _ *story, v string) error { return share(&o.start.Policy.FailureBudget, v) },
	"absent":   func(o *storyFarm, _ *story, v string) error { return share(&o.start.Policy.AbsentMax, v) },
	"parallel": func(o *storyFarm, _ *story, v string) error { return number(&o.start.Policy.MaxParallel, v) },
	"soak":     func(o *storyFarm, _ *story, v string) error { return duration(&o.start.Policy.Soak, v) },
	"deadline": func(o *storyFarm, _ *story, v string) error { return duration(&o.start.Policy.HealthyDeadline, v) },
	"settle": func(o *storyFarm, _ *story, v string) error { // the new version was made at noon
		o.start.To.NotBefore = noon
		return duration(&o.start.Policy.Settle, v)
	},
	"begins": func(o *storyFarm, _ *story, v string) (err error) { // when the new version is valid from, after noon
		var after time.Duration
		err = duration(&after, v)
		o.start.To.NotBefore = noon.Add(after)
		return err
	},
	"lag":     func(_ *storyFarm, st *story, v string) error { return duration(&st.lag, v) },
	"changed": func(o *storyFarm, _ *story, _ string) error { o.start.Changed = true; return nil },
	"forward": func(o *storyFarm, _ *story, _ string) error { o.start.Forward = true; return nil },
	"life": func(o *storyFarm, _ *story, v string) (err error) { // what is left of the old version's, 1 to 0
		o.life, err = strconv.ParseFloat(v, 64)
		return err
	},
	"lives":  func(o *storyFarm, _ *story, v string) error { o.lives = each(v); return nil },
	"groups": func(o *storyFarm, _ *story, v string) error { o.groups = each(v); return nil },
	"also":   func(o *storyFarm, _ *story, v string) error { o.also = each(v); return nil }, // what is left of a second leaf's life
	"from":   func(o *storyFarm, _ *story, v string) error { o.from = each(v); return nil }, // none, revoked, compromised, faulty
	"last":   func(o *storyFarm, _ *story, v string) error { o.last = each(v); return nil },
	"noundo": func(_ *storyFarm, st *story, v string) error {
		for name := range each(v) {
			st.fixed[name] = true
		}
		return nil
	},
	"window": func(o *storyFarm, _ *story, v string) error { // hours, UTC
		var from, to int
		_, err := fmt.Sscanf(v, "%d-%d", &from, &to)
		w := farm.Window{From: time.Duration(from) * time.Hour, To: time.Duration(to) * time.Hour, Zone: "UTC"}
		o.start.Policy.Windows = append(o.start.Policy.Windows, w)
		return err
	},
	"wave": func(o *storyFarm, _ *story, v string) error { // NAME:TARGET,TARGET…[:approve]
		parts := strings.Split(v, ":")
		for name := range each(parts[1]) {
			o.labels[name] = map[string]string{"wave": parts[0]}
		}
		o.start.Policy.Waves = append(o.start.Policy.Waves, farm.WaveSpec{
			Name: parts[0], Match: map[string]string{"wave": parts[0]}, Approve: len(parts) > 2,
		})
		return nil
	},
}

func each(text string) map[string]string {
	all := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, ":")
		all[key] = value
	}
	return all
}

func share(s *farm.Share, text string) (err error) {
	if percent, is := strings.CutSuffix(text, "%"); is {
		s.Percent, err = strconv.ParseFloat(percent, 64)
		return err
	}
	return number(&s.Count, text)
}

func number(n *int, text string) (err error) {
	*n, err = strconv.Atoi(text)
	return err
}

func duration(d *time.Duration, text string) (err error) {
	*d, err = time.ParseDuration(text)
	return err
}
