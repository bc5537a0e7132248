package renew

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certfarm/certfarm/internal/farm"
)

const day = 24 * time.Hour

var begin = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func facts(life time.Duration) Facts {
	return Facts{
		Site: "shop",
		Want: Want{Names: []string{"www.farm.test", "farm.test"}, KeyTypes: []farm.KeyType{farm.EC256}, Issuer: "le", Profile: "classic"},
		Have: farm.Version{
			ID: "v1", Names: []string{"farm.test", "WWW.farm.test"}, Issuer: "le", Profile: "classic",
			Leaves: []farm.Leaf{{Fingerprint: "abc", KeyType: farm.EC256, NotBefore: begin, NotAfter: begin.Add(life)}},
		},
	}
}

// imported makes the version one that a person imported, of another key type than
// farm.yaml asks for.
func imported(f *Facts) {
	f.Have.Issuer, f.Have.Profile, f.Have.Leaves[0].KeyType = "", "", farm.RSA2048
	f.Have.StandsFor = &farm.Wanted{KeyTypes: f.Want.KeyTypes, Issuer: f.Want.Issuer, Profile: f.Want.Profile}
}

func TestDue(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	for name, c := range map[string]struct {
		change func(*Facts)
		now    time.Duration
		why    string // "": not due
		again  time.Duration
		ask    bool
	}{
		"fresh":                  {nil, day, "", 2 * day, true},
		"none":                   {func(f *Facts) { f.Have = farm.Version{} }, day, "no certificate yet", 0, false},
		"revoked":                {func(f *Facts) { f.Have.State, f.Have.Reason = farm.VersionRevoked, "by the CA" }, day, "revoked: by the CA", 0, true},
		"compromised":            {func(f *Facts) { f.Have.State = farm.VersionCompromised }, day, "compromised", 0, true},
		"faulty":                 {func(f *Facts) { f.Have.State = farm.VersionFaulty }, day, "faulty", 0, true},
		"new name":               {func(f *Facts) { f.Want.Names = append(f.Want.Names, "a.farm.test") }, day, "new: a.farm.test", 0, true},
		"name gone":              {func(f *Facts) { f.Want.Names = f.Want.Names[:1] }, day, "gone: farm.test", 0, true},
		"other key":              {func(f *Facts) { f.Want.KeyTypes = []farm.KeyType{farm.RSA2048} }, day, "key types", 0, true},
		"second key":             {func(f *Facts) { f.Want.KeyTypes = []farm.KeyType{farm.EC256, farm.RSA2048} }, day, "key types", 0, true},
		"other issuer":           {func(f *Facts) { f.Want.Issuer = "zero" }, day, "issuer changed from le to zero", 0, true},
		"other profile":          {func(f *Facts) { f.Want.Profile = "" }, day, "profile", 0, true},
		"imported":               {func(f *Facts) { f.Have.Issuer, f.Have.Profile = "", "" }, day, "", 2 * day, true},
		"imported, another key":  {func(f *Facts) { imported(f) }, day, "", 2 * day, true},
		"imported, key since":    {func(f *Facts) { imported(f); f.Want.KeyTypes = []farm.KeyType{farm.EC384} }, day, "key types changed from [ec256] to [ec384]", 0, true},
		"imported, issuer since": {func(f *Facts) { imported(f); f.Want.Issuer = "zero" }, day, "issuer changed from le to zero", 0, true},
		"imported, names since":  {func(f *Facts) { imported(f); f.Want.Names = append(f.Want.Names, "more.test") }, day, "new: more.test", 0, true},
		"imported long ago":      {func(f *Facts) { imported(f) }, 60 * day, "a third", 0, true},
		"imported, not known":    {func(f *Facts) { imported(f); f.Have.StandsFor = nil }, day, "", 2 * day, true},
		"a person asks":          {func(f *Facts) { f.Asked = "ada wants it" }, day, "ada wants it", 0, true},
		"suggested":              {suggest(50*day, 40*day), 50 * day, "the CA suggests it", 0, true},
		"not yet suggested":      {suggest(50*day, 51*day), 50*day - time.Hour, "", 50 * day, false},
		"ask again first":        {suggest(50*day, 49*day+time.Hour), 49 * day, "", 49*day + time.Hour, false},
		"suggested late":         {suggest(85*day, 80*day), 67*day + 12*time.Hour, "too late", 0, false},
		"late, in time":          {suggest(85*day, 80*day), 67 * day, "", 67*day + 12*time.Hour, false},
		"no answer":              {func(f *Facts) { f.Suggest = farm.Suggestion{Leaf: "abc", Ask: at(61 * day)} }, 60 * day, "a third", 0, false},
		"for another leaf":       {func(f *Facts) { f.Suggest = farm.Suggestion{Leaf: "old", Chosen: at(0), Ask: at(day)} }, 2 * day, "", 3 * day, true},
		"a third is left":        {nil, 60 * day, "a third", 0, true},
		"expired":                {nil, 90 * day, "expired at 2027-01-30", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := facts(90 * day)
			if c.change != nil {
				c.change(&f)
			}
			v := Due(f, at(c.now))
			if v.Due != (c.why != "") || !strings.Contains(v.Why, c.why) {
				t.Errorf("due %v: %s; want %q", v.Due, v.Why, c.why)
			}
			if c.why == "" && !v.Again.Equal(at(c.again)) {
				t.Errorf("again at %s, want %s", v.Again, at(c.again))
			}
			if v.Ask != c.ask {
				t.Errorf("ask: %v", v.Ask)
			}
		})
	}
}

func suggest(chosen, ask time.Duration) func(*Facts) {
	return func(f *Facts) {
		f.Suggest = farm.Suggestion{Leaf: "abc", Chosen: begin.Add(chosen), Ask: begin.Add(ask)}
	}
}

func TestLastSafe(t *testing.T) {
	t.Parallel()
	for life, before := range map[time.Duration]time.Duration{
		90 * day: 7*day + 12*time.Hour, 160 * time.Hour: 13*time.Hour + 20*time.Minute,
		6 * time.Hour: time.Hour, time.Hour: 30 * time.Minute,
	} {
		f := facts(life)
		end := f.Have.NotAfter()
		v := Due(f, begin)
		if got := end.Sub(v.LastSafe); got != before {
			t.Errorf("%s: the last safe moment is %s before the end, want %s", life, got, before)
		}
		if v.PastSafe(end.Add(-before-1)) || !v.PastSafe(end.Add(-before)) {
			t.Errorf("%s: PastSafe does not agree with LastSafe", life)
		}
	}
	if v := Due(Facts{}, begin); !v.LastSafe.IsZero() || v.PastSafe(begin) {
		t.Error("there is nothing that could expire, and still a last safe moment")
	}
}

// The jitter spreads sites evenly, and always the same way.
func TestJitter(t *testing.T) {
	t.Parallel()
	const sites, parts, wide = 10000, 10, 90 * day / 8
	var count [parts]int
	for i := range sites {
		f := facts(90 * day)
		f.Site = fmt.Sprintf("site-%d", i)
		from, _ := backstop(f)
		left := f.Have.NotAfter().Sub(from)
		if left < 30*day || left > 30*day+wide {
			t.Fatalf("%s is due with %s left", f.Site, left)
		}
		count[min(int((left-30*day)*parts/wide), parts-1)]++
	}
	for i, n := range count {
		if n < sites/parts*8/10 || n > sites/parts*12/10 {
			t.Errorf("part %d of the time has %d of %d sites", i, n, sites)
		}
	}
}

func anyFacts(t *rapid.T) Facts {
	f := facts(time.Duration(rapid.Int64Range(int64(time.Minute), int64(400*day)).Draw(t, "life")))
	f.Site = rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "site")
	if rapid.Bool().Draw(t, "suggested") {
		life := int64(f.Have.NotAfter().Sub(begin))
		chosen := rapid.Int64Range(-life, 2*life).Draw(t, "chosen")
		asked := rapid.Int64Range(-life, 2*life).Draw(t, "ask")
		suggest(time.Duration(chosen), time.Duration(asked))(&f)
	}
	return f
}

// What is due stays due; between a look and the next nothing becomes due; a
// look always lies ahead; and whatever the CA suggests, an order begins before
// the last safe moment.
func TestNothingIsMissed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := anyFacts(t)
		life := int64(f.Have.NotAfter().Sub(begin))
		now := begin.Add(time.Duration(rapid.Int64Range(0, 2*life).Draw(t, "now")))
		v := Due(f, now)
		if v.Due {
			later := now.Add(time.Duration(rapid.Int64Range(0, life).Draw(t, "later")))
			if !Due(f, later).Due {
				t.Fatalf("due at %s (%s) and no more at %s", now, v.Why, later)
			}
			return
		}
		if !v.Again.After(now) || v.Again.After(now.Add(lookLatest)) {
			t.Fatalf("looked at %s, and again at %s", now, v.Again)
		}
		between := now.Add(time.Duration(rapid.Int64Range(0, int64(v.Again.Sub(now))-1).Draw(t, "between")))
		if Due(f, between).Due {
			t.Fatalf("it became due at %s, before the next look at %s", between, v.Again)
		}
		if v.PastSafe(now) {
			t.Fatalf("not due at %s, past the last safe moment %s", now, v.LastSafe)
		}
	})
}

// The story of a certificate, looked at only when the verdict says so.
func TestStory(t *testing.T) {
	t.Parallel()
	f, now, looks := facts(90*day), begin, 0
	for v := Due(f, now); !v.Due; v = Due(f, now) {
		if looks++; looks > 200 {
			t.Fatal("it is never due")
		}
		if v.Ask { // the CA answers with a window around 60 days, to be asked for every 6 hours
			f.Suggest = farm.Suggestion{Leaf: "abc", Chosen: begin.Add(60*day + time.Hour), Ask: now.Add(18 * time.Hour)}
			continue
		}
		now = v.Again
	}
	if want := begin.Add(60*day + time.Hour); !now.Equal(want) {
		t.Errorf("renewed at %s, want %s", now, want)
	}
}
