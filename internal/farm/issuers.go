package farm

// Issuers are all issuers of the site, in the order in which they are asked.
func (s Site) Issuers() []string {
	return append([]string{s.Issuer}, s.Fallbacks...)
}
