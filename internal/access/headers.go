package access

import "net/http"

// policy lets a page load from its own controller and run no script that stands in
// the page (CSP level 3).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self'; manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// strict has browsers come by TLS only, for a year (RFC 6797). They heed it only
// where the certificate is good, so a placeholder locks nobody out.
const strict = "max-age=31536000"

// Headers gives every answer the headers that keep a browser from mischief. Answers
// are not kept by caches unless h says otherwise.
func (g *Gate) Headers(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", policy)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "same-origin") // the Origin of forms is sent, and nothing to others
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		head.Set("Cache-Control", "no-store")
		if g.secure(r) {
			head.Set("Strict-Transport-Security", strict)
		}
		h.ServeHTTP(w, r)
	})
}
