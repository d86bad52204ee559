# Times a call of glmmTMB or ordinal, with its summary.
# Usage: Rscript components.R <csv> <package> <call> <budget>
args <- commandArgs(TRUE)
suppressMessages(library(args[2], character.only = TRUE))
d <- read.csv(args[1], stringsAsFactors = TRUE)
for (v in c("judge", "site", "Nest", "p", "i", "g")) if (v %in% names(d)) d[[v]] <- factor(d[[v]])
call <- parse(text = args[3]); budget <- as.numeric(args[4])
run <- function() { m <- eval(call, list(d = d), globalenv()); s <- summary(m); m }
timed <- function() system.time(r <<- suppressMessages(suppressWarnings(run())))[["elapsed"]]
first <- timed(); times <- c()
repeat {
  times <- c(times, timed()); n <- length(times); used <- sum(times)
  if (n >= 200 || used > 4 * budget || (n >= 3 && used > budget)) break
}
cat(sprintf('{"first": %.6f, "times": [%s], "log_likelihood": %.9f, "version": "%s"}\n', first,
  paste(format(times, digits = 6), collapse = ", "), as.numeric(logLik(r)), as.character(packageVersion(args[2]))))
