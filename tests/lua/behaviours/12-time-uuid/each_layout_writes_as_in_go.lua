-- 12.1 The layouts are in Go's reference-time style.
local time = require("time")

return function()
  local t = time.date(2024, 3, 5, 16, 7, 8, 9000000, time.fixed_zone("CET", 3600))
  for name, text in pairs{
    RFC3339 = "2024-03-05T16:07:08+01:00", RFC3339NANO = "2024-03-05T16:07:08.009+01:00",
    RFC822 = "05 Mar 24 16:07 CET", RFC822Z = "05 Mar 24 16:07 +0100", RFC850 = "Tuesday, 05-Mar-24 16:07:08 CET",
    RFC1123 = "Tue, 05 Mar 2024 16:07:08 CET", RFC1123Z = "Tue, 05 Mar 2024 16:07:08 +0100", KITCHEN = "4:07PM",
    STAMP = "Mar  5 16:07:08", STAMP_MILLI = "Mar  5 16:07:08.009", STAMP_MICRO = "Mar  5 16:07:08.009000",
    STAMP_NANO = "Mar  5 16:07:08.009000000", DATE_TIME = "2024-03-05 16:07:08", DATE_ONLY = "2024-03-05",
    TIME_ONLY = "16:07:08",
  } do
    check.equal(t:format(time[name]), text, name)
  end
  check.equal(t:format("Monday, 2. January 2006, 3 o'clock"), "Tuesday, 5. March 2024, 4 o'clock")
  check.equal(t:format_rfc3339(), "2024-03-05T16:07:08+01:00")
end
