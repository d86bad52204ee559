# Times lme4 on a problem.
# Usage: Rscript lme4.R <csv> <formula> <reml> <factors> <work> <budget> <family> <nodes> <weights>
args <- commandArgs(TRUE)
suppressMessages(library(lme4))
d <- read.csv(args[1])
for (v in strsplit(args[4], ",")[[1]]) d[[v]] <- factor(d[[v]])
f <- as.formula(args[2]); reml <- args[3] == "True"; work <- args[5]; budget <- as.numeric(args[6])
family <- args[7]; nodes <- as.integer(args[8])
d$w_ <- if (length(args) < 9 || args[9] == "") 1 else d[[args[9]]]
fit <- function() {
  if (family == "gaussian") lmer(f, d, REML = reml)
  else glmer(f, d, family = family, nAGQ = nodes, weights = w_)
}
m <- NULL; peers <- 100; scale <- 1
if (work %in% c("refit", "bootstrap")) m <- fit()
if (work == "many") {
  # refits of simulated responses, some of them, the time scaled to all
  scale <- as.numeric(args[10]) / peers
  if (family == "gaussian") m <- fit()
  else m <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), d, family = family)
}
run <- switch(work, fit = fit, alone = fit, refit = function() refit(m, d[[all.vars(f)[1]]]),
  many = function() { for (y in simulate(m, peers, seed = 1)) r <- refit(m, y); r },
  bootstrap = function() { for (y in simulate(m, 10000, seed = 1)) r <- refit(m, y); r })
timed <- function() system.time(r <<- suppressMessages(suppressWarnings(run())))[["elapsed"]]
first <- scale * timed(); times <- c()
repeat {
  times <- c(times, scale * timed()); n <- length(times); used <- sum(times) / scale
  if (n >= 200 || used > 4 * budget || (n >= 3 && used > budget)) break
}
cat(sprintf('{"first": %.6f, "times": [%s], "log_likelihood": %.9f, "version": "%s"}\n', first,
  paste(format(times, digits = 6), collapse = ", "), as.numeric(logLik(r)), as.character(packageVersion("lme4"))))
