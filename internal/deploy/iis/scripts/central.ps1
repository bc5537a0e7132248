# Enables IIS' Centralized Certificate Store, or disables it again.
Import-Module WebAdministration
if ($data.enable) {
    $settings = @{ CertStoreLocation = $data.location; UserName = $data.user; Password = $data.password; PrivateKeyPassword = $data.key }
    Enable-WebCentralCertProvider @settings
    if ($data.interval -gt 0) { Set-ItemProperty -LiteralPath $central -Name PollingInterval -Value ([int] $data.interval) -Type DWord }
} else {
    Disable-WebCentralCertProvider
}
Answer @('OK')
