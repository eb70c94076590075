#!/usr/bin/perl
# Verifies the DKIM signatures of every file that smtp-sink wrote into a directory, with Mail::DKIM and without DNS.
# Usage: verify_dkim.pl DIRECTORY RECORD-NAME RECORD. Prints "GOOD BAD"; names the first bad files on standard error.
use strict;
use warnings;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;

my ($directory, $record_name, $record) = @ARGV;

package FixedRecord {
    sub type { 'TXT' }
    sub txtdata { $record }
    sub char_str_list { $record }
}

{
    no warnings 'redefine';
    *Mail::DKIM::DNS::query = sub {
        my ($name, $type) = @_;
        return lc $name eq lc $record_name && $type eq 'TXT' ? bless({}, 'FixedRecord') : ();
    };
    *Mail::DKIM::DNS::query_async = sub {
        my ($name, $type, %options) = @_;
        my @answer = Mail::DKIM::DNS::query($name, $type);
        my $waiting = $options{Callbacks}{Success};
        return sub { $waiting ? $waiting->(@answer) : @answer };
    };
}

my ($good, $bad) = (0, 0);
opendir(my $listing, $directory) or die "$directory: $!";
for my $file (sort grep { !/^\.\.?$/ } readdir $listing) {
    open(my $message, '<:raw', "$directory/$file") or die "$file: $!";
    my $text = do { local $/; <$message> };
    $text =~ s/\r?\n/\r\n/g;
    my $verifier = Mail::DKIM::Verifier->new;
    $verifier->PRINT($text);
    $verifier->CLOSE;
    if ($verifier->result eq 'pass') { $good++ }
    elsif ($bad++ < 5) { warn "$file: ", $verifier->result_detail, "\n" }
}
print "$good $bad\n";
