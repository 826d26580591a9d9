#!/bin/sh
# A CGI program: sets the number of a NIC's queues if the query is NIC=NUMBER, and reports.
export PATH=/bin
printf 'Content-Type: text/plain\r\n\r\n'
if [ -n "$QUERY_STRING" ]; then
  ethtool -L "${QUERY_STRING%=*}" combined "${QUERY_STRING#*=}" 2>&1
  echo "EXIT code=$?"
fi
report
