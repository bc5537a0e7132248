package certfarm

import (
	_ "github.com/cloudsoda/go-smb2"
	_ "github.com/pavlo-v-chernykh/keystore-go/v4"
	_ "software.sslmate.com/src/go-pkcs12"
)
