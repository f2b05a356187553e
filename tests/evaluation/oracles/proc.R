# What pROC and base R say of a small data set made by a formula; prints "name,value" lines.
#   Debian: apt-get install --no-install-recommends r-cran-proc
#   Rscript tests/evaluation/oracles/proc.R > tests/evaluation/oracles/proc.csv
# proc.csv was written by pROC 1.18.0 and R 4.2.2 of Debian 12 on x86-64.
suppressMessages(library(pROC))

# The generator of Park and Miller (x -> 16807 x mod 2^31 - 1): whole numbers below 2^53, the same in every language.
state <- 20240229
draw <- function(n) {
  out <- numeric(n)
  for (i in seq_len(n)) {
    state <<- (16807 * state) %% 2147483647
    out[i] <- state
  }
  out
}
n <- 130
y <- as.numeric(draw(n) %% 5 < 2)
common <- draw(n) %% 600
a <- common + draw(n) %% 400 + 260 * y
b <- common + draw(n) %% 500 + 150 * y
scores <- list(a = a, b = b, a_tied = floor(a / 250), b_tied = floor(b / 300))

say <- function(name, value) cat(sprintf("%s,%.17g\n", name, value))
curves <- lapply(scores, function(s) roc(y, s, levels = c(0, 1), direction = "<", quiet = TRUE))
cat("name,value\n")
say("n_positive", sum(y))
for (name in names(scores)) {
  say(paste0(name, "_sum"), sum(scores[[name]]))
  say(paste0(name, "_auc"), as.numeric(auc(curves[[name]])))
  say(paste0(name, "_variance"), var(curves[[name]], method = "delong"))
}
pairs <- list(c("a", "b"), c("a", "a_tied"), c("a_tied", "b_tied"))
for (pair in pairs) {
  key <- paste(pair, collapse = "_vs_")
  test <- roc.test(curves[[pair[1]]], curves[[pair[2]]], method = "delong", paired = TRUE)
  say(paste0(key, "_covariance"), cov(curves[[pair[1]]], curves[[pair[2]]], method = "delong"))
  say(paste0(key, "_z"), as.numeric(test$statistic))
  say(paste0(key, "_p"), as.numeric(test$p.value))
  say(paste0(key, "_low"), test$conf.int[1])
  say(paste0(key, "_high"), test$conf.int[2])
}
p <- c(0.01, 0.04, 0.03, 0.005, 0.5, 0.03)
for (i in seq_along(p)) say(paste0("holm_", i), p.adjust(p, "holm")[i])

# Isotonic regression of the labels on the order of a score without ties: a, broken by the number of the row.
rank_a <- rank(a * 1000 + seq_len(n))
fit <- isoreg(rank_a, y)
fitted <- numeric(n)
fitted[order(rank_a)] <- fit$yf
for (i in c(1, 40, 80, 130)) say(paste0("isotonic_", i), fitted[i])

# A logistic regression without intercept on the logit is temperature scaling: its coefficient is 1/T.
prob <- (a + 1) / (max(a) + 2)
say("inverse_temperature", as.numeric(coef(glm(y ~ 0 + qlogis(prob), family = binomial,
                                               control = glm.control(epsilon = 1e-14, maxit = 100)))))

# Not stratified, as ours: 20 000 resamples leave about half a per cent of noise in z. Slow, so left out by "quick".
if (!("quick" %in% commandArgs(TRUE))) {
  set.seed(1)
  drawn <- roc.test(curves$a, curves$b, method = "bootstrap", boot.n = 20000, boot.stratified = FALSE, paired = TRUE,
                    progress = "none")
  say("a_vs_b_bootstrap_z", as.numeric(drawn$statistic))
}
