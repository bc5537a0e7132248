# Runs before each of the other scripts. What they are told is in $data, which came over
# the standard input; no word of it becomes a part of a script.
$tab = [string][char]9
$memory = 'HKLM:\SOFTWARE\Certfarm\IIS'
$central = 'HKLM:\SOFTWARE\Microsoft\IIS\CentralCertProvider'

# Answer prints lines of text so that no code page, no width of a console and no message of
# another program can change them.
function Answer([string[]] $lines) {
    $raw = [Text.Encoding]::UTF8.GetBytes(($lines -join "`n"))
    $out = New-Object IO.MemoryStream
    $zip = New-Object IO.Compression.GZipStream($out, [IO.Compression.CompressionMode]::Compress, $true)
    $zip.Write($raw, 0, $raw.Length)
    $zip.Dispose()
    [Console]::Out.WriteLine('certfarm:' + [Convert]::ToBase64String($out.ToArray()) + ':end')
}

# Packed is a text in a form that has no tabs and no line ends.
function Packed([string] $text) {
    return [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($text))
}

# Hex is how fingerprints are written.
function Hex([byte[]] $bytes) {
    return [BitConverter]::ToString($bytes).Replace('-', '').ToLowerInvariant()
}

# Keep writes what is remembered on the node: no text, no value.
function Keep($notes) {
    foreach ($note in $notes) {
        if (-not (Test-Path -LiteralPath $memory)) { $null = New-Item -Path $memory -Force }
        if ($note.text -eq '') {
            Remove-ItemProperty -LiteralPath $memory -Name $note.id -ErrorAction SilentlyContinue
        } else {
            Set-ItemProperty -LiteralPath $memory -Name $note.id -Value $note.text -Type String
        }
    }
}

# Netsh is what http.sys serves, in whatever language: only its shape is read.
function Netsh {
    return @(& "$env:windir\System32\netsh.exe" http show sslcert)
}
