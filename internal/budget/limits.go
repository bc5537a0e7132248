package budget

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/certfarm/certfarm/internal/farm"
)

// Directories of CAs whose limits are known.
const (
	letsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	letsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// LetsEncrypt is what Let's Encrypt allows without an override
// (https://letsencrypt.org/docs/rate-limits/, as of 2026-08-05).
func LetsEncrypt() farm.Limits {
	return farm.Limits{
		Orders:   farm.Rate{Count: 300, Per: 3 * time.Hour},
		Domain:   farm.Rate{Count: 50, Per: 7 * 24 * time.Hour},
		Names:    farm.Rate{Count: 5, Per: 7 * 24 * time.Hour},
		Accounts: farm.Rate{Count: 10, Per: 3 * time.Hour},
		Failures: farm.Rate{Count: 5, Per: time.Hour},
		Exempt:   farm.ExemptARI,
	}
}

// LimitsOf is what an issuer allows: what farm.yaml says of it, over what is known
// of its directory. Of a CA that nobody said anything of nothing is known but what
// Allow holds to, and that five validations of a name may fail in an hour.
func LimitsOf(i farm.Issuer) farm.Limits {
	known := farm.Limits{Failures: LetsEncrypt().Failures}
	switch i.Directory {
	case letsEncrypt:
		known = LetsEncrypt()
	case letsEncryptStaging:
		known.Orders, known.Exempt = farm.Rate{Count: 1500, Per: 3 * time.Hour}, farm.ExemptARI
	}
	if i.Limits == nil {
		return known
	}
	said := *i.Limits
	return farm.Limits{
		Orders: cmp.Or(said.Orders, known.Orders), Domain: cmp.Or(said.Domain, known.Domain),
		Names: cmp.Or(said.Names, known.Names), Failures: cmp.Or(said.Failures, known.Failures), Accounts: cmp.Or(said.Accounts, known.Accounts),
		Exempt: cmp.Or(said.Exempt, known.Exempt),
	}
}

// Domains are what a CA counts names under, sorted: registered domains by the
// public suffix list, IPv4 addresses as they are, IPv6 addresses by their /64.
func Domains(names []string) []string {
	all := make([]string, 0, 1)
	for _, n := range names {
		if d := domain(n); !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	slices.Sort(all)
	return all
}

func domain(name string) string {
	name = strings.TrimPrefix(strings.ToLower(name), "*.")
	if ip, err := netip.ParseAddr(name); err == nil {
		if ip = ip.Unmap(); ip.Is6() {
			return netip.PrefixFrom(ip, 64).Masked().String()
		}
		return ip.String()
	}
	d, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		return name // it is a suffix itself, and is counted alone
	}
	return d
}
