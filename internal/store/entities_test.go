package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// small is a farm with one site a name, each on one target.
func small(sites ...string) farm.Farm {
	f := farm.Farm{
		Name:      "f",
		Proxy:     "http://proxy:3128",
		Resolvers: map[string][]string{".": {"127.0.0.1:53"}},
		Issuers:   []farm.Issuer{{Name: "ca", Directory: "https://ca/dir"}},
		Nodes:     []farm.Node{{Name: "n1", Address: "10.0.0.1", SSH: &farm.SSH{Port: 22, User: "deploy"}}},
	}
	for _, name := range sites {
		f.Sites = append(f.Sites, farm.Site{Name: name, Names: []string{name + ".example"}, Issuer: "ca", Targets: []farm.Target{
			{Name: name + "-n1", Site: name, Node: "n1", Kind: "nginx", Options: []byte(`{"a":1}`)},
		}})
	}
	return f
}

// same compares without the difference between nothing and an empty list.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// What sites ask of a CA is read without the rest of them, and is what whole sites say.
func TestSitesAsked(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, _ *clock) {
		f := small("a", "b")
		f.Sites[1].Profile, f.Sites[1].KeyTypes = "shortlived", []farm.KeyType{farm.EC256, farm.RSA2048}
		var asked []farm.Site
		update(t, s, func(tx *store.Tx) error {
			if _, err := tx.SaveFarm(t.Context(), f, []byte("farm: f\n"), "alice", 0); err != nil {
				return err
			}
			var err error
			asked, err = tx.SitesAsked(t.Context(), "f")
			return err
		})
		slices.SortFunc(asked, func(a, b farm.Site) int { return strings.Compare(a.Name, b.Name) })
		for i := range f.Sites {
			f.Sites[i].Targets = nil
		}
		same(t, "what they ask", asked, f.Sites)
	})
}

func TestAFarmIsKeptAsRevisionsAndRows(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		text := []byte("# a comment ü\nfarm: f\n")
		update(t, s, func(tx *store.Tx) error {
			n, err := tx.SaveFarm(ctx, small("a", "b"), text, "alice", 0)
			if n != 1 {
				t.Errorf("the first revision is %d", n)
			}
			return err
		})
		view(t, s, func(tx *store.Tx) error {
			f, err := tx.Farm(ctx, "f")
			same(t, "farm", f, small("a", "b"))
			r, err2 := tx.Revision(ctx, "f")
			same(t, "revision", r, store.Revision{Farm: "f", Number: 1, Text: text, By: "alice", At: c.now()})
			site, err3 := tx.Site(ctx, "f", "b")
			same(t, "site", site, small("b").Sites[0])
			ca, err6 := tx.IssuerOf(ctx, "f", "b")
			same(t, "its CA", ca, "ca")
			next, err4 := tx.Sites(ctx, "f", "a", 5)
			same(t, "sites after a", next, small("b").Sites)
			farms, err5 := tx.Farms(ctx)
			same(t, "farms", farms, []string{"f"})
			return errors.Join(err, err2, err3, err4, err5, err6)
		})
		for name, find := range map[string]func(*store.Tx) error{
			"site":     func(tx *store.Tx) error { _, err := tx.Site(ctx, "f", "x"); return err },
			"its CA":   func(tx *store.Tx) error { _, err := tx.IssuerOf(ctx, "f", "x"); return err },
			"node":     func(tx *store.Tx) error { _, err := tx.Node(ctx, "f", "x"); return err },
			"issuer":   func(tx *store.Tx) error { _, err := tx.Issuer(ctx, "f", "x"); return err },
			"farm":     func(tx *store.Tx) error { _, err := tx.Farm(ctx, "x"); return err },
			"revision": func(tx *store.Tx) error { _, err := tx.Revision(ctx, "x"); return err },
			"place":    func(tx *store.Tx) error { _, err := tx.Place(ctx, "f", "x"); return err },
		} {
			if err := s.View(ctx, find); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestAPlanAgainstAnOldRevisionIsAConflict(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		save := func(by string, was int64, sites ...string) error {
			return s.Update(ctx, func(tx *store.Tx) error {
				_, err := tx.SaveFarm(ctx, small(sites...), []byte(by), by, was)
				return err
			})
		}
		if err := errors.Join(save("alice", 0, "a"), save("bob", 1, "a", "b")); err != nil {
			t.Fatal(err)
		}
		conflict, is := errors.AsType[*store.Conflict](save("carol", 1, "c"))
		if !is {
			t.Fatal("no conflict")
		}
		same(t, "conflict", *conflict, store.Conflict{Revision: 2, By: "bob", At: c.now()})
		if _, is := errors.AsType[*store.Conflict](save("carol", 0, "c")); !is {
			t.Error("a farm that was there was taken for a new one")
		}
		view(t, s, func(tx *store.Tx) error {
			f, err := tx.Farm(ctx, "f")
			same(t, "farm", f, small("a", "b"))
			all, err2 := tx.Revisions(ctx, "f", 0)
			if len(all) != 2 || all[0].By != "bob" {
				t.Errorf("revisions %v", all)
			}
			return errors.Join(err, err2)
		})
		if err := save("mallory", 2, "a\xff"); err != nil { // in a name it is replaced, in the text refused
			t.Error(err)
		}
		err := s.Update(ctx, func(tx *store.Tx) error {
			_, err := tx.SaveFarm(ctx, small(), []byte("\xff"), "mallory", 3)
			return err
		})
		if err == nil {
			t.Error("a text that is not UTF-8 was kept")
		}
	})
}

func TestPlacesOutliveChangesOfTheFarm(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, _ *clock) {
		ctx := t.Context()
		var number int64
		save := func(f farm.Farm) {
			update(t, s, func(tx *store.Tx) (err error) {
				number, err = tx.SaveFarm(ctx, f, nil, "alice", number)
				return err
			})
		}
		place := func() (p farm.Place) {
			view(t, s, func(tx *store.Tx) (err error) {
				p, err = tx.Place(ctx, "f", "a-n1")
				return err
			})
			return p
		}
		save(small("a", "b"))
		p := place()
		same(t, "a new place", p, farm.Place{Farm: "f", Target: small("a").Sites[0].Targets[0]})
		p.Desired = []string{"v1"}
		p.Sights = []farm.Sight{{Target: "a-n1", Answered: true}}
		update(t, s, func(tx *store.Tx) error { return tx.PutPlace(ctx, p) })

		changed := small("a", "b")
		changed.Sites[0].Targets[0].Options = []byte(`{"a":2}`)
		save(changed)
		p.Target.Options = []byte(`{"a":2}`)
		same(t, "a changed place", place(), p)

		save(small("b"))
		p.Released = true
		same(t, "a released place", place(), p)
		save(small("b"))
		same(t, "a released place, again", place(), p)

		save(changed)
		p.Released = false
		same(t, "a place that is there again", place(), p)
		view(t, s, func(tx *store.Tx) error {
			all, err := tx.Places(ctx, "f", "")
			of, err2 := tx.Places(ctx, "f", "b")
			if len(all) != 2 || len(of) != 1 || of[0].Target.Name != "b-n1" {
				t.Errorf("all %v, of b %v", all, of)
			}
			return errors.Join(err, err2)
		})
		update(t, s, func(tx *store.Tx) error { return tx.RemovePlace(ctx, "f", "a-n1") })
		view(t, s, func(tx *store.Tx) error {
			if _, err := tx.Place(ctx, "f", "a-n1"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("retired: %v", err)
			}
			return nil
		})
	})
}

func TestCertificatesAndVersions(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		cert := farm.Certificate{Farm: "f", Site: "a", Version: "v2", Failures: 3, Next: c.now()}
		update(t, s, func(tx *store.Tx) error {
			none, err := tx.Certificate(ctx, "f", "a")
			same(t, "before the first", none, farm.Certificate{Farm: "f", Site: "a"})
			return errors.Join(err, tx.PutCertificate(ctx, cert), tx.PutCertificate(ctx, farm.Certificate{Farm: "f", Site: "b"}),
				tx.PutVersion(ctx, farm.Version{ID: "v1", Farm: "f", Site: "a"}), tx.PutVersion(ctx, farm.Version{ID: "w", Farm: "f", Site: "b"}))
		})
		c.pass(time.Hour)
		v2 := farm.Version{ID: "v2", Farm: "f", Site: "a", Created: c.now(), Leaves: []farm.Leaf{{Fingerprint: "ab", Chain: []byte("PEM")}}}
		update(t, s, func(tx *store.Tx) error { return tx.PutVersion(ctx, v2) })
		v2.State = farm.VersionFaulty
		update(t, s, func(tx *store.Tx) error { return tx.PutVersion(ctx, v2) })
		view(t, s, func(tx *store.Tx) error {
			got, err := tx.Certificate(ctx, "f", "a")
			same(t, "certificate", got, cert)
			after, err2 := tx.Certificates(ctx, "f", "a", 10)
			if len(after) != 1 || after[0].Site != "b" {
				t.Errorf("after a: %v", after)
			}
			all, err3 := tx.Versions(ctx, "f", "a")
			if len(all) != 2 || all[1].ID != "v1" || all[1].Created.IsZero() {
				t.Errorf("versions %v", all)
			}
			same(t, "newest version", all[0], v2)
			one, err4 := tx.Version(ctx, "f", "v2")
			same(t, "version", one, v2)
			return errors.Join(err, err2, err3, err4)
		})
	})
}

func TestSealedRecords(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		const n = 300 // more than a page
		update(t, s, func(tx *store.Tx) error {
			for i := range n {
				if err := tx.PutSealed(ctx, "f", "key", fmt.Sprintf("%03d", i), []byte{byte(i), 0, 255}); err != nil {
					return err
				}
			}
			return tx.PutSealed(ctx, "g", "credential", "x", nil)
		})
		update(t, s, func(tx *store.Tx) error { // as when all are sealed anew
			count := 0
			for r, err := range tx.AllSealed(ctx) {
				if err != nil {
					return err
				}
				count++
				if err := tx.PutSealed(ctx, r.Farm, r.Kind, r.Name, append(r.Sealed, 7)); err != nil {
					return err
				}
			}
			if count != n+1 {
				t.Errorf("%d of %d", count, n+1)
			}
			return nil
		})
		view(t, s, func(tx *store.Tx) error {
			got, err := tx.Sealed(ctx, "f", "key", "299")
			if !bytes.Equal(got, []byte{299 - 256, 0, 255, 7}) {
				t.Errorf("got %v", got)
			}
			names, err2 := tx.SealedNames(ctx, "g", "credential")
			same(t, "names", names, []store.SealedInfo{{Name: "x", At: c.now()}})
			return errors.Join(err, err2)
		})
		update(t, s, func(tx *store.Tx) error { return tx.RemoveSealed(ctx, "f", "key", "299") })
		err := s.View(ctx, func(tx *store.Tx) error { _, err := tx.Sealed(ctx, "f", "key", "299"); return err })
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("removed: %v", err)
		}
	})
}

func TestOrders(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		a := farm.Order{ID: "o1", Farm: "f", Site: "a", Intent: "i", Issuer: "ca", Names: []string{"b.example", "a.example"}, State: farm.OrderNew, Created: c.now()}
		b := a
		b.ID, b.Names, b.Created = "o2", []string{"A.example", "b.example"}, c.now().Add(time.Hour)
		if store.Slot(a) != store.Slot(b) {
			t.Errorf("%q is not %q", store.Slot(a), store.Slot(b))
		}
		other := a
		other.ID, other.Profile, other.Intent, other.State = "o3", "short", "j", farm.OrderPending
		open := func() (id string) {
			view(t, s, func(tx *store.Tx) (err error) { id, err = tx.OpenOrder(ctx, "f", store.Slot(a)); return err })
			return id
		}
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.PutOrder(ctx, a), tx.PutOrder(ctx, b), tx.PutOrder(ctx, other))
		})
		for state, want := range map[farm.OrderState]string{
			farm.OrderNew: "", farm.OrderPending: "o1", farm.OrderPresented: "o1", farm.OrderAccepted: "o1", farm.OrderReady: "o1",
			farm.OrderProcessing: "", farm.OrderIssued: "", farm.OrderDone: "", farm.OrderFailed: "",
		} {
			a.State = state
			update(t, s, func(tx *store.Tx) error { return tx.PutOrder(ctx, a) })
			if got := open(); got != want {
				t.Errorf("%s: the open order is %q", state, got)
			}
		}
		view(t, s, func(tx *store.Tx) error {
			of, err := tx.OrdersOfIntent(ctx, "f", "i")
			if len(of) != 2 || of[0].ID != "o1" {
				t.Errorf("of the intent: %v", of)
			}
			one, err2 := tx.Order(ctx, "f", "o2")
			same(t, "order", one, b)
			since, err3 := tx.Orders(ctx, "f", store.OrderQuery{Site: "a", Since: c.now().Add(time.Minute)})
			same(t, "since", since, []farm.Order{b})
			newest, err4 := tx.Orders(ctx, "f", store.OrderQuery{Slot: store.Slot(a), Limit: 1})
			same(t, "newest", newest, []farm.Order{b})
			return errors.Join(err, err2, err3, err4)
		})
	})
}

func TestChallengesAndAccounts(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		challenge := farm.Challenge{Type: "http-01", Name: "a.example", Token: "tok", Value: "tok.print"}
		account := store.Account{Farm: "f", Issuer: "ca", Directory: "https://ca/dir", URL: "https://ca/1", HoldUntil: c.now()}
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.PutChallenge(ctx, "f", "o1", challenge), tx.PutAccount(ctx, account))
		})
		view(t, s, func(tx *store.Tx) error {
			got, err := tx.ChallengeByToken(ctx, "tok")
			same(t, "challenge", got, challenge)
			found, err2 := tx.Account(ctx, "f", "ca", "https://ca/dir")
			same(t, "account", found, account)
			for _, stray := range []string{"other", "\xff\x00"} { // what a stranger may ask for
				if _, err := tx.ChallengeByToken(ctx, stray); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%q: %v", stray, err)
				}
			}
			if _, err := tx.Account(ctx, "f", "ca", "https://other/dir"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("an account elsewhere: %v", err)
			}
			return errors.Join(err, err2)
		})
		update(t, s, func(tx *store.Tx) error { return tx.RemoveChallenges(ctx, "f", "o1") })
		err := s.View(ctx, func(tx *store.Tx) error { _, err := tx.ChallengeByToken(ctx, "tok"); return err })
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("removed: %v", err)
		}
	})
}

func TestRecords(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		put := func(name, value string) {
			update(t, s, func(tx *store.Tx) error { return tx.PutRecord(ctx, name, value) })
		}
		has := func(name string, want ...string) {
			t.Helper()
			view(t, s, func(tx *store.Tx) error {
				got, err := tx.Records(ctx, name)
				same(t, name, got, want)
				return err
			})
		}
		put("a.auth.example", "1")
		put("a.auth.example", "2")
		put("a.auth.example", "2")
		put("b.auth.example", "2")
		has("a.auth.example", "1", "2")
		for range 2 {
			update(t, s, func(tx *store.Tx) error { return tx.RemoveRecord(ctx, "a.auth.example", "2") })
			has("a.auth.example", "1")
		}
		has("b.auth.example", "2")
		has("c.auth.example")
		c.pass(time.Hour)
		put("b.auth.example", "3")
		update(t, s, func(tx *store.Tx) error { return tx.Expire(ctx, c.now()) })
		has("a.auth.example")
		has("b.auth.example", "3")
	})
}

func TestRollouts(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		step := func(target, group string, do farm.Verb) farm.Step {
			return farm.Step{Target: target, Group: group, State: farm.Staged, Doing: do, Attempt: 2, Receipt: []byte{0, 1}}
		}
		r := farm.Rollout{ID: "ro1", Farm: "f", Site: "a", Created: c.now(), Waves: []farm.Wave{{Name: "canary"}}, Steps: []farm.Step{
			step("z", "g", farm.DoActivate), step("a", "g", farm.DoActivate), step("m", "h", farm.DoActivate), step("n", "g", farm.DoStage),
		}}
		ended := farm.Rollout{ID: "ro0", Farm: "f", Site: "b", Created: c.now().Add(-time.Hour), Ended: c.now(), Outcome: farm.Done,
			Steps: []farm.Step{step("q", "g", farm.DoActivate)}}
		update(t, s, func(tx *store.Tx) error { return errors.Join(tx.PutRollout(ctx, r), tx.PutRollout(ctx, ended)) })
		r.Paused = true
		r.Steps[0].State = farm.Active
		r.Steps = r.Steps[:3]
		update(t, s, func(tx *store.Tx) error { return tx.PutRollout(ctx, r) })
		r.Steps[2].Error = "no"
		update(t, s, func(tx *store.Tx) error {
			if err := tx.PutSteps(ctx, "f", []store.StepOf{{Rollout: "ro1", Step: farm.Step{Target: "nobody"}}}); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a step of nobody: %v", err)
			}
			return tx.PutSteps(ctx, "f", []store.StepOf{{Rollout: "ro1", Step: r.Steps[2]}})
		})
		view(t, s, func(tx *store.Tx) error {
			got, err := tx.Rollout(ctx, "f", "ro1")
			same(t, "rollout", got, r)
			one, err2 := tx.Step(ctx, "f", "ro1", "a")
			same(t, "step", one, r.Steps[1])
			running, err3 := tx.RunningRollouts(ctx, "f", "")
			same(t, "running", running, []farm.Rollout{r})
			of, err4 := tx.RunningRollouts(ctx, "f", "b")
			same(t, "running of b", of, []farm.Rollout(nil))
			steps, err8 := tx.StepsOf(ctx, "f", "b", "q", 0)
			same(t, "ended steps of q", steps, ended.Steps)
			none, err9 := tx.StepsOf(ctx, "f", "a", "a", 0) // it runs
			same(t, "ended steps of a", none, []farm.Step(nil))
			all, err5 := tx.Rollouts(ctx, "f", "", 0)
			same(t, "all", all, []farm.Rollout{r, ended})
			second, err11 := tx.RolloutsAfter(ctx, "f", "", r.ID, 1)
			same(t, "after the first", second, all[1:])
			nothing, err12 := tx.RolloutsAfter(ctx, "f", "", ended.ID, 0)
			same(t, "after the last", len(nothing), 0)
			if _, err := tx.RolloutsAfter(ctx, "f", "", "nobody", 0); !errors.Is(err, store.ErrNoPlace) {
				t.Errorf("after a rollout that is not there: %v", err)
			}
			doing, err6 := tx.Doing(ctx, "f", "g", farm.DoActivate, 0)
			same(t, "doing", doing, []store.Doing{{Rollout: "ro1", Site: "a", Target: "z", Attempt: 2}, {Rollout: "ro1", Site: "a", Target: "a", Attempt: 2}})
			few, err7 := tx.Doing(ctx, "f", "g", farm.DoActivate, 1)
			if len(few) != 1 {
				t.Errorf("limited: %v", few)
			}
			if _, err := tx.InFlight(ctx, "f", "g", farm.DoActivate, 0); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("acts on targets without a place: %v", err)
			}
			only := func(i int) farm.Rollout {
				one := r
				one.Steps = r.Steps[i : i+1]
				return one
			}
			z, m := store.StepID{Rollout: "ro1", Target: "z"}, store.StepID{Rollout: "ro1", Target: "m"}
			some, err10 := tx.RolloutsFor(ctx, "f", []store.StepID{z, m, {Rollout: "ro1", Target: "n"}, {Rollout: "ro9", Target: "z"}})
			same(t, "rollouts for", some, map[store.StepID]farm.Rollout{z: only(0), m: only(2)})
			if err10 != nil {
				return err10
			}
			return errors.Join(err, err2, err3, err4, err5, err6, err7, err8, err9, err11, err12)
		})
		places := []farm.Place{{Farm: "f", Target: farm.Target{Name: "a"}}, {Farm: "f", Target: farm.Target{Name: "z"}}}
		update(t, s, func(tx *store.Tx) error { return errors.Join(tx.PutPlace(ctx, places[0]), tx.PutPlace(ctx, places[1])) })
		view(t, s, func(tx *store.Tx) error {
			acts, err := tx.InFlight(ctx, "f", "g", farm.DoActivate, 0)
			z, a := r, r
			z.Steps, a.Steps = r.Steps[:1], r.Steps[1:2]
			same(t, "in flight", acts, []store.InFlight{{Rollout: z, Place: places[1]}, {Rollout: a, Place: places[0]}})
			one, err2 := tx.InFlight(ctx, "f", "g", farm.DoActivate, 1)
			same(t, "the first in flight", one, acts[:1])
			return errors.Join(err, err2)
		})
	})
}

// What is staged anywhere by a rollout that has a target in a group concerns the
// group; what has ended, and what others stage, does not.
func TestStagingConcernsGroups(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		step := func(target, group string, do farm.Verb) farm.Step {
			return farm.Step{Target: target, Group: group, State: farm.Planned, Doing: do}
		}
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(
				tx.PutRollout(ctx, farm.Rollout{ID: "ro1", Farm: "f", Site: "a", Created: c.now(), Steps: []farm.Step{step("a", "g", ""), step("b", "h", farm.DoStage)}}),
				tx.PutRollout(ctx, farm.Rollout{ID: "ro2", Farm: "f", Site: "b", Created: c.now(), Steps: []farm.Step{step("c", "i", farm.DoActivate)}}),
				tx.PutRollout(ctx, farm.Rollout{ID: "ro3", Farm: "f", Site: "c", Created: c.now(), Ended: c.now(), Outcome: farm.Done, Steps: []farm.Step{step("d", "i", farm.DoStage)}}))
		})
		view(t, s, func(tx *store.Tx) error {
			for group, want := range map[string]bool{"g": true, "h": true, "i": false, "none": false} {
				if got, err := tx.Staging(ctx, "f", group); err != nil || got != want {
					t.Errorf("staging beside %s: %v (%v), want %v", group, got, err, want)
				}
			}
			return nil
		})
	})
}

// A rollout that is about to decide concerns the groups in which it has a target that
// rests; one that has ended, or decides later, none.
func TestDecidingConcernsGroups(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		rollout := func(id string, o farm.Outcome, steps ...farm.Step) farm.Rollout {
			return farm.Rollout{ID: id, Farm: "f", Site: id, Created: c.now(), Outcome: o, Steps: steps}
		}
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(
				tx.PutRollout(ctx, rollout("ro1", farm.Running, farm.Step{Target: "a", Group: "g"}, farm.Step{Target: "b", Group: "h", Doing: farm.DoVerify})),
				tx.PutRollout(ctx, rollout("ro2", farm.Running, farm.Step{Target: "c", Group: "i"})),
				tx.PutRollout(ctx, rollout("ro3", farm.Done, farm.Step{Target: "d", Group: "j"})),
				tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "advance", Subject: "ro1"}),
				tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "advance", Subject: "ro2", RunAt: c.now().Add(time.Hour)}),
				tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "advance", Subject: "ro3"}))
		})
		view(t, s, func(tx *store.Tx) error {
			for group, want := range map[string]bool{"g": true, "h": false, "i": false, "j": false} {
				if got, err := tx.Deciding(ctx, "f", group); err != nil || got != want {
					t.Errorf("deciding beside %s: %v (%v), want %v", group, got, err, want)
				}
			}
			doing, err := tx.DoingOf(ctx, "f", []string{"ro1", "ro4"})
			if want := (map[farm.Verb]int{"": 1, farm.DoVerify: 1}); len(doing) != 1 || !maps.Equal(doing["ro1"], want) {
				t.Errorf("acts: %v, want %v", doing, want)
			}
			return err
		})
	})
}

// To enqueue a job twice in one transaction is to enqueue it once, at the earlier time,
// unless it was taken back between.
func TestEnqueueingTwiceInOneTransaction(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		at := func(d time.Duration) farm.Job {
			return farm.Job{Farm: "f", Kind: "look", Subject: "a", RunAt: c.now().Add(d)}
		}
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.Enqueue(ctx, at(time.Hour)), tx.Enqueue(ctx, at(2*time.Hour)), tx.Enqueue(ctx, at(time.Minute)), tx.Enqueue(ctx, at(time.Hour)),
				tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "look", Subject: "b"}), tx.RemoveJob(ctx, "f", "look", "b"), tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "look", Subject: "b"}))
		})
		view(t, s, func(tx *store.Tx) error {
			jobs, err := tx.Jobs(ctx, "f", 0)
			if len(jobs) != 2 || jobs[0].Subject != "b" || !jobs[1].RunAt.Equal(c.now().Add(time.Minute)) {
				t.Errorf("jobs: %+v", jobs)
			}
			return err
		})
	})
}

func TestEventsKeepTheirOrder(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		for i := range 20 { // at one moment, in several transactions
			update(t, s, func(tx *store.Tx) error {
				site := "a"
				if i%2 == 1 {
					site = "b"
				}
				return tx.AddEvent(ctx, farm.Event{Farm: "f", Kind: "k", Level: farm.Info, Site: site, Text: fmt.Sprint(i)})
			})
		}
		view(t, s, func(tx *store.Tx) error {
			all, err := tx.Events(ctx, "f", store.EventQuery{})
			for i, e := range all {
				if e.Text != fmt.Sprint(i) || !e.At.Equal(c.now()) {
					t.Errorf("event %d is %v", i, e)
				}
			}
			if len(all) != 20 {
				t.Fatalf("%d events", len(all))
			}
			after, err2 := tx.Events(ctx, "f", store.EventQuery{After: all[9].ID, Site: "a", Limit: 2})
			same(t, "after", after, []farm.Event{all[10], all[12]})
			last, err3 := tx.Events(ctx, "f", store.EventQuery{Newest: true, Limit: 2, Kind: "k", Level: farm.Info})
			same(t, "last", last, []farm.Event{all[19], all[18]})
			none, err4 := tx.Events(ctx, "f", store.EventQuery{Level: farm.Alarm})
			if len(none) > 0 {
				t.Errorf("alarms: %v", none)
			}
			known := []string{all[3].ID, all[5].ID, all[19].ID}
			since, err5 := tx.EventsSince(ctx, "f", all[3].ID, known, 2)
			same(t, "since", since, []farm.Event{all[4], {ID: all[5].ID, At: all[5].At}, all[6], all[7], all[8]})
			return errors.Join(err, err2, err3, err4, err5)
		})
	})
}

func TestWhatIsOldExpires(t *testing.T) {
	each(t, func(t *testing.T, s *store.Store, c *clock) {
		ctx := t.Context()
		fill := func(n string) {
			update(t, s, func(tx *store.Tx) error {
				return errors.Join(
					tx.AddEvent(ctx, farm.Event{Farm: "f", Kind: n}),
					tx.PutOrder(ctx, farm.Order{ID: "done" + n, Farm: "f", State: farm.OrderDone}),
					tx.PutOrder(ctx, farm.Order{ID: "open" + n, Farm: "f", State: farm.OrderPending}),
					tx.PutChallenge(ctx, "f", "done"+n, farm.Challenge{Token: "done" + n}),
					tx.PutChallenge(ctx, "f", "open"+n, farm.Challenge{Token: "open" + n}),
					tx.PutRollout(ctx, farm.Rollout{ID: "ended" + n, Farm: "f", Site: "a", Outcome: farm.Done, Ended: tx.Now(), Steps: []farm.Step{{Target: "x"}}}),
					tx.PutRollout(ctx, farm.Rollout{ID: "only" + n, Farm: "f", Site: n, Outcome: farm.Done, Ended: tx.Now()}),
					tx.PutVersion(ctx, farm.Version{ID: n, Farm: "f", Site: "a"}),
				)
			})
		}
		fill("1")
		c.pass(time.Hour)
		fill("2")
		update(t, s, func(tx *store.Tx) error { return tx.Expire(ctx, c.now()) })
		view(t, s, func(tx *store.Tx) error {
			var left []string
			events, err := tx.Events(ctx, "f", store.EventQuery{})
			for _, e := range events {
				left = append(left, "event "+e.Kind)
			}
			orders, err2 := tx.Orders(ctx, "f", store.OrderQuery{})
			for _, o := range orders {
				left = append(left, "order "+o.ID)
			}
			for _, token := range []string{"done1", "done2", "open1"} {
				if _, err := tx.ChallengeByToken(ctx, token); err == nil {
					left = append(left, "challenge "+token)
				}
			}
			rollouts, err3 := tx.Rollouts(ctx, "f", "", 0)
			for _, r := range rollouts {
				left = append(left, "rollout "+r.ID)
			}
			versions, err4 := tx.Versions(ctx, "f", "a")
			for _, v := range versions {
				left = append(left, "version "+v.ID)
			}
			if _, err := tx.Step(ctx, "f", "ended1", "x"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("the step of an expired rollout: %v", err)
			}
			same(t, "left", left, []string{
				"event 2", "order open2", "order done2", "order open1", "challenge done2", "challenge open1",
				"rollout only2", "rollout ended2", "rollout only1", "version 2", "version 1",
			})
			return errors.Join(err, err2, err3, err4)
		})
	})
}

func TestABackupOfEitherDatabaseIsRestoredToEither(t *testing.T) {
	databases := storetest.Databases()
	for i, from := range databases {
		for _, to := range databases[i:] {
			t.Run(from+" to "+to, func(t *testing.T) { backAndForth(t, from, to) })
			if from != to {
				t.Run(to+" to "+from, func(t *testing.T) { backAndForth(t, to, from) })
			}
		}
	}
}

func backAndForth(t *testing.T, from, to string) {
	ctx, c := t.Context(), newClock()
	s := storetest.Open(t, from, store.Options{Now: c.now})
	update(t, s, func(tx *store.Tx) error {
		_, err := tx.SaveFarm(ctx, small("a"), []byte("# ü <&>\n"), "alice", 0)
		return errors.Join(err,
			tx.PutSealed(ctx, "f", "key", "k", []byte{0, 255}),
			tx.PutRollout(ctx, farm.Rollout{ID: "ro", Farm: "f", Site: "a", Steps: []farm.Step{{Target: "a-n1", Receipt: []byte{1}}}}),
			tx.AddEvent(ctx, farm.Event{Farm: "f", Kind: "k", Text: "x"}),
			tx.Enqueue(ctx, farm.Job{Farm: "f", Kind: "check", Subject: "a", Lane: "l"}))
	})
	jobs, _, err := s.Claim(ctx, "me", 1, time.Hour)
	if err != nil || len(jobs) != 1 {
		t.Fatal(jobs, err)
	}
	var file bytes.Buffer
	if err := s.Backup(ctx, &file); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(ctx, bytes.NewReader(file.Bytes())); err == nil {
		t.Error("a store that is not empty was restored to")
	}
	whole := file.String()
	for name, bad := range map[string]string{
		"cut off":       whole[:len(whole)-20],
		"a row missing": whole[:len(whole)/2] + whole[len(whole)/2+bytes.IndexByte(file.Bytes()[len(whole)/2:], '\n'):],
		"no backup":     "hello\n",
		"newer":         `{"certfarm":"backup 1","schema":99,"at":"2026-01-01T00:00:00Z"}` + "\n",
		"strange table": `{"certfarm":"backup 1","schema":1}` + "\n" + `{"t":"pg_class","r":{"a":1}}` + "\n",
		"strange word":  `{"certfarm":"backup 1","schema":1}` + "\n" + `{"t":"words","r":{"farm":"f","name":"x","value":"y","more":1}}` + "\n",
	} {
		r := storetest.Open(t, "sqlite", store.Options{})
		if err := r.Restore(ctx, bytes.NewReader([]byte(bad))); err == nil {
			t.Errorf("%s: restored", name)
		}
		if err := r.Restore(ctx, bytes.NewReader(file.Bytes())); err != nil {
			t.Errorf("%s left something: %v", name, err)
		}
	}
	r := storetest.Open(t, to, store.Options{Now: c.now})
	if err := r.Restore(ctx, bytes.NewReader(file.Bytes())); err != nil {
		t.Fatal(err)
	}
	if got := word(t, r, store.Observing); got == "" {
		t.Error("it does not observe")
	}
	again, _, err := r.Claim(ctx, "you", 1, time.Hour)
	if err != nil || len(again) != 1 || again[0].Epoch <= jobs[0].Epoch {
		t.Errorf("claimed %v after %v, %v", again, jobs, err)
	}
	if got, want := everything(t, r), everything(t, s); got != want {
		t.Error(cmp.Diff(want, got))
	}
}

// everything is what can be read of farm f, but its jobs.
func everything(t *testing.T, s *store.Store) (all string) {
	ctx := context.WithoutCancel(t.Context())
	view(t, s, func(tx *store.Tx) error {
		f, err := tx.Farm(ctx, "f")
		r, err2 := tx.Revisions(ctx, "f", 0)
		p, err3 := tx.Places(ctx, "f", "")
		k, err4 := tx.Sealed(ctx, "f", "key", "k")
		ro, err5 := tx.Rollout(ctx, "f", "ro")
		e, err6 := tx.Events(ctx, "f", store.EventQuery{})
		all = fmt.Sprintf("%+v\n%+v\n%+v\n%v\n%+v\n%+v", f.Sites, r, p, k, ro, e)
		return errors.Join(err, err2, err3, err4, err5, err6)
	})
	return all
}
