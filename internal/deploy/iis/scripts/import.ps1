# Puts a certificate with its key into a store of the machine, beside what is there, and
# those above it into Intermediate Certification Authorities. The key is never in a file.
Keep $data.notes
$flags = [Security.Cryptography.X509Certificates.X509KeyStorageFlags]::MachineKeySet -bor [Security.Cryptography.X509Certificates.X509KeyStorageFlags]::PersistKeySet
if ($data.exportable) { $flags = $flags -bor [Security.Cryptography.X509Certificates.X509KeyStorageFlags]::Exportable }
$all = New-Object Security.Cryptography.X509Certificates.X509Certificate2Collection
$all.Import([Convert]::FromBase64String($data.pfx), $data.password, $flags)
foreach ($c in $all) {
    $name = 'CA'
    if ($c.HasPrivateKey) { $name = $data.store } elseif ($c.Subject -eq $c.Issuer) { continue }
    $store = New-Object Security.Cryptography.X509Certificates.X509Store($name, [Security.Cryptography.X509Certificates.StoreLocation]::LocalMachine)
    $store.Open([Security.Cryptography.X509Certificates.OpenFlags]::ReadWrite)
    try { $store.Add($c) } finally { $store.Close() }
}
Answer @('OK')
